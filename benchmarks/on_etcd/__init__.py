"""Leases and markers on etcd, next to what its bare requests and its own lock service can do."""
