"""Ways to hold a lock on ZooKeeper: ours, bare requests of kazoo, and kazoo's own recipe."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from benchmarks.common.contenders import Contenders, Way

if TYPE_CHECKING:
    from kazoo.client import KazooClient

logging.getLogger("kazoo").addHandler(logging.NullHandler())


def url(port: int) -> str:
    """Return the store URL of a server."""
    return f"zookeeper://127.0.0.1:{port}/coordinate"


def client(port: int, ttl: float) -> KazooClient:
    """Return a connected client of kazoo."""
    from kazoo.client import KazooClient

    made = KazooClient(f"127.0.0.1:{port}", timeout=ttl)
    made.start(timeout=30)
    return made


class Coordinate(Way):
    """A lease: fencing token, renewal."""

    label = "coordinate"
    waits = "woken in turn"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        from coordinate import connect

        self.coordinator = connect(url(port), namespace="bench", ttl=ttl)
        self.lease = self.coordinator.lease(name)

    def acquire(self) -> None:
        """Wait for the lease."""
        self.lease.acquire()

    def release(self) -> None:
        """Give it back; it is an error if it was lost."""
        if not self.lease.release():
            message = "the lease was lost"
            raise RuntimeError(message)


class BareRequests(Way):
    """The limit without contention: create an ephemeral node, delete it."""

    label = "create + delete"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        self._client = client(port, ttl)
        self._path = f"/bare-{name}"

    def acquire(self) -> None:
        """Create the node."""
        self._client.create(self._path, b"x" * 150, ephemeral=True)

    def release(self) -> None:
        """Delete it."""
        self._client.delete(self._path)


class BareQueue(Way):
    """The limit of waiting: an ephemeral sequential node, and a watch on the one before it."""

    label = "bare queue"
    waits = "watches the one before"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        self._client = client(port, ttl)
        self._line = f"/queue-{name}"
        self._client.ensure_path(self._line)
        self._path = ""

    def acquire(self) -> None:
        """Stand in line; wait until the one before has gone."""
        self._path = self._client.create(f"{self._line}/n-", b"", ephemeral=True, sequence=True)
        row = sorted(self._client.get_children(self._line))
        position = row.index(self._path.rpartition("/")[2])
        if position == 0:
            return
        gone = threading.Event()
        if self._client.exists(f"{self._line}/{row[position - 1]}", watch=lambda _: gone.set()):
            gone.wait()

    def release(self) -> None:
        """Leave."""
        self._client.delete(self._path)


class KazooLock(Way):
    """kazoo's recipe."""

    label = "kazoo Lock"
    waits = "watches the one before"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        self._lock = client(port, ttl).Lock(f"/lock-{name}")

    def acquire(self) -> None:
        """Wait for it."""
        self._lock.acquire()

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


PAIRS = Contenders(Coordinate, BareRequests, (KazooLock,))
QUEUES = Contenders(Coordinate, BareQueue, (KazooLock,))
