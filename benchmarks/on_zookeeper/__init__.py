"""Leases and markers on ZooKeeper, next to what bare requests and watches of kazoo can do."""
