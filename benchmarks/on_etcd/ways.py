"""Ways to hold a lock on etcd: ours, two bare transactions, and the lock service of etcd itself."""

from __future__ import annotations

from benchmarks.common.contenders import Contenders, Way


def url(port: int) -> str:
    """Return the store URL of a member."""
    return f"etcd://127.0.0.1:{port}"


def key_of(name: str) -> bytes:
    """Return where our lease of a name is."""
    return f"/bench/leases/{name}".encode()


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


class BareTransactions(Way):
    """The limit without contention: create the key if it is not there, delete it if it is ours."""

    label = "two bare transactions"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        from benchmarks.on_etcd.bare import Member

        from coordinate_etcd import messages

        self._member = Member(port)
        self._messages = messages
        self._key = name.encode()
        self._lease = self._member.grant(600)
        self._revision = 0

    def acquire(self) -> None:
        """Create the key."""
        make = self._messages
        reply = self._member.transact(
            make.transaction([make.created(self._key, 0)], [make.put(self._key, b"x" * 150, self._lease)])
        )
        if not reply.succeeded:
            message = "somebody else holds it"
            raise RuntimeError(message)
        self._revision = reply.header.revision

    def release(self) -> None:
        """Delete it."""
        make = self._messages
        self._member.transact(make.transaction([make.created(self._key, self._revision)], [make.delete(self._key)]))


class LockService(Way):
    """The limit of waiting: one request that the server answers when it is this one's turn."""

    label = "etcd's own Lock request"
    waits = "in the server"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        from benchmarks.on_etcd.bare import Member

        self._member = Member(port)
        # Nobody keeps it alive: it has to last for the wait.
        self._lease = self._member.grant(max(ttl, 120))
        self._key = b""

    def acquire(self) -> None:
        """Wait in the server."""
        self._key = self._member.lock(self.name.encode(), self._lease)

    def release(self) -> None:
        """Delete the key."""
        self._member.unlock(self._key)


PAIRS = Contenders(Coordinate, BareTransactions, (LockService,))
QUEUES = Contenders(Coordinate, LockService)
