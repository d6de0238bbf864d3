"""Ways to hold a lock on Redis: ours, the bare commands, and other libraries as their users call them.

They acquire and release any number of times.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import redis
from benchmarks.common.contenders import Way

RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def client(port: int, **options: Any) -> redis.Redis:  # noqa: ANN401 -- whatever redis-py takes
    """Return redis-py as it comes, with its pool."""
    return redis.Redis(port=port, **options)


class RedisWay(Way):
    """A contender whose lock is one key."""

    @classmethod
    def key_of(cls, name: str) -> str:
        """Return the key whose expiry frees the lock."""
        return name


class Coordinate(RedisWay):
    """A lease: fencing token, quarantine, renewal."""

    label = "coordinate"
    waits = "woken in turn"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        from coordinate import connect

        self.coordinator = connect(f"redis://127.0.0.1:{port}/0", namespace="bench", ttl=ttl)
        self.lease = self.coordinator.lease(name)

    @classmethod
    def key_of(cls, name: str) -> str:
        """Return the key of the lease."""
        return f"bench:{{l:{name}}}:lease"

    def acquire(self) -> None:
        """Wait for the lease."""
        self.lease.acquire()

    def release(self) -> None:
        """Give it back; it is an error if it was lost."""
        if not self.lease.release():
            message = "the lease was lost"
            raise RuntimeError(message)


class BareCommands(RedisWay):
    """The limit without contention: what any lock needs at least, on redis-py."""

    label = "bare SET NX PX + EVALSHA"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        self._redis = client(port)
        self._sha = self._redis.script_load(RELEASE)
        self._nonce = os.urandom(16).hex()
        self._ms = round(ttl * 1000)

    def acquire(self) -> None:
        """Set the key."""
        if not self._redis.set(self.name, self._nonce, nx=True, px=self._ms):
            message = "somebody else holds it"
            raise RuntimeError(message)

    def release(self) -> None:
        """Delete the key if it is ours."""
        self._redis.evalsha(self._sha, 1, self.name, self._nonce)


class BareList(RedisWay):
    """The limit of waiting: an element of a list that is popped and pushed back."""

    label = "bare BLPOP"
    waits = "BLPOP"
    starts_empty = True

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        self._redis = client(port, socket_timeout=None)
        self._redis.ping()

    def acquire(self) -> None:
        """Pop."""
        self._redis.blpop([self.name])

    def release(self) -> None:
        """Push."""
        self._redis.rpush(self.name, b"1")


class RedisPyLock(RedisWay):
    """redis-py's own Lock."""

    label = "redis-py Lock"
    waits = "polls, 0.1 s"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        self._lock = client(port).lock(name, timeout=ttl)

    def acquire(self) -> None:
        """Poll until it is ours."""
        self._lock.acquire()

    def release(self) -> None:
        """Delete the key."""
        self._lock.release()


class PythonRedisLock(RedisWay):
    """python-redis-lock with renewal: a thread for each held lock."""

    label = "python-redis-lock"
    waits = "BLPOP"
    renews: ClassVar[bool] = True

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        import redis_lock

        # redis-py's default socket timeout of 5 s would end its wait.
        connection = client(port, socket_timeout=None)
        self._lock = redis_lock.Lock(connection, name, expire=max(1, round(ttl)), auto_renewal=self.renews)

    @classmethod
    def key_of(cls, name: str) -> str:
        """Return its key."""
        return f"lock:{name}"

    def acquire(self) -> None:
        """Wait in BLPOP."""
        self._lock.acquire()

    def release(self) -> None:
        """Delete and signal."""
        self._lock.release()


class PythonRedisLockPlain(PythonRedisLock):
    """The same without renewal."""

    label = "python-redis-lock, no renewal"
    renews = False


class Tooz(RedisWay):
    """tooz's Redis driver; its heartbeat is not started."""

    label = "tooz"
    waits = "polls, 0.1 s"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        from tooz import coordination

        url = f"redis://127.0.0.1:{port}?lock_timeout={max(1, round(ttl))}"
        member = coordination.get_coordinator(url, f"{os.getpid()}-{os.urandom(4).hex()}".encode())
        member.start()
        self._lock = member.get_lock(name.encode())

    @classmethod
    def key_of(cls, name: str) -> str:
        """Return its key."""
        return f"_tooz_{name}_lock"

    def acquire(self) -> None:
        """Poll until it is ours."""
        self._lock.acquire()

    def release(self) -> None:
        """Delete the key."""
        self._lock.release()


class Sherlock(RedisWay):
    """sherlock's RedisLock."""

    label = "sherlock"
    waits = "polls, 0.1 s"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        import sherlock

        # Given in milliseconds to the server, so a fraction of a second is refused.
        options = {"client": client(port), "expire": max(1, round(ttl)), "timeout": 60, "retry_interval": 0.1}
        self._lock = sherlock.RedisLock(name, **options)

    def acquire(self) -> None:
        """Poll until it is ours."""
        self._lock.acquire()

    def release(self) -> None:
        """Delete the key."""
        self._lock.release()


class Pottery(RedisWay):
    """pottery's Redlock with one master."""

    label = "pottery Redlock"
    waits = "polls, random"

    def __init__(self, port: int, name: str, ttl: float) -> None:
        super().__init__(port, name, ttl)
        from pottery import Redlock

        self._lock = Redlock(key=name, masters={client(port)}, auto_release_time=ttl)

    @classmethod
    def key_of(cls, name: str) -> str:
        """Return its key."""
        return f"redlock:{name}"

    def acquire(self) -> None:
        """Poll until it is ours."""
        self._lock.acquire()

    def release(self) -> None:
        """Delete the key."""
        self._lock.release()


OURS: type[RedisWay] = Coordinate
PEERS: tuple[type[RedisWay], ...] = (RedisPyLock, PythonRedisLock, PythonRedisLockPlain, Tooz, Sherlock, Pottery)
WAITING_PEERS = tuple(kind for kind in PEERS if kind is not PythonRedisLockPlain)
"""Renewal makes no difference to a wait."""
