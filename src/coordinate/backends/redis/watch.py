"""The waiting channel: one subscribed connection, which costs the server nothing while nothing happens."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING, cast

from coordinate.backend import Watch
from coordinate.backends.redis.failures import DRIVER_ERRORS, failure
from coordinate.backends.redis.topology import pack
from coordinate.errors import BackendUnavailable, CoordinateError
from coordinate.types import Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.backends.redis.keys import Keys
    from coordinate.backends.redis.topology import Standalone

_WHAT = "waiting"


class RedisWatch(Watch):
    """Listens on a channel of its own for turns of its process's waiters, and on one for each watched scope.

    A lost connection is reported by `drain`, at the latest when TCP's keepalive notices it. What was
    published while nobody listened is lost: whoever opens a new channel looks for itself first.
    """

    poll_interval = math.inf

    def __init__(self, server: Standalone, keys: Keys, pass_on: Callable[[Topic], None]) -> None:
        self._url = server.url
        self._keys = keys
        self._pass_on = pass_on
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._scopes: dict[bytes, Topic] = {}
        self._pending: set[Topic] = set()
        self._over = False
        self.channel = keys.channel()
        self._wire = server.dial(_WHAT)
        with self._talking():
            self._fd = self._descriptor()
            self._converse(b"SUBSCRIBE", self.channel)

    def fileno(self) -> int:
        """Return the socket."""
        return self._fd

    def add(self, topic: Topic) -> None:
        """Subscribe to a scope's changes; turns for a lease need no more than `acquire` with this watch.

        Raises:
            BackendUnavailable: the server did not confirm it.
        """
        if topic.kind != "markers":
            return
        channel = self._keys.scope(topic.name).changed
        with self._talking():
            self._scopes[channel] = topic
            self._converse(b"SUBSCRIBE", channel)

    def remove(self, topic: Topic) -> None:
        """Unsubscribe from a scope's changes.

        Raises:
            BackendUnavailable: the channel is broken.
        """
        if topic.kind != "markers":
            return
        channel = self._keys.scope(topic.name).changed
        with self._talking():
            if self._scopes.pop(channel, None) is not None:
                # Nobody waits for the confirmation: drain() reads over it.
                self._wire.send_packed_command([pack((b"UNSUBSCRIBE", channel))], check_health=False)

    def drain(self) -> frozenset[Topic]:
        """Return what was published since the last call, out of the driver's buffer and the socket's.

        Raises:
            BackendUnavailable: the connection is lost, or belongs to the process this one was forked from.
        """
        with self._talking():
            while self._wire.can_read(timeout=0):
                self._hear()
            pending, self._pending = frozenset(self._pending), set()
            return pending

    def close(self) -> None:
        """Give up; turns that nobody took go to the next waiter, if the server can still be reached."""
        if self._pid != os.getpid():
            # The lock may be held by a thread that does not exist here. Only this process's copy is closed.
            self._wire.disconnect()
            return
        turns = self._last_turns()
        with self._lock:
            self._over = True
            self._wire.disconnect()
        for topic in turns:
            with contextlib.suppress(CoordinateError):
                self._pass_on(topic)

    def _last_turns(self) -> list[Topic]:
        # Once the server has confirmed that nobody listens here, it gives no further turn to this channel.
        with contextlib.suppress(BackendUnavailable), self._talking():
            self._converse(b"UNSUBSCRIBE", self.channel)
        with self._lock:
            pending, self._pending = self._pending, set()
        return [topic for topic in pending if topic.kind == "lease"]

    def _converse(self, command: bytes, channel: bytes) -> None:
        """Send a (un)subscription and read until it is confirmed; what else arrives is kept for `drain`."""
        self._wire.send_packed_command([pack((command, channel))], check_health=False)
        while self._hear() != (command.lower(), channel):
            pass

    def _hear(self) -> tuple[bytes, bytes]:
        """Take one message; return its kind and channel."""
        kind, channel, data = cast("tuple[bytes, bytes, bytes | int]", self._wire.read_response())
        if kind == b"message":
            topic = self._scopes.get(channel)
            if channel == self.channel:
                nonce, _, name = cast(bytes, data).decode(errors="replace").partition(" ")
                topic = Topic("lease", name, nonce)
            if topic is not None:
                self._pending.add(topic)
        return kind, channel

    def _descriptor(self) -> int:
        # The driver has no public way to wait for its socket together with others.
        sock = self._wire._sock  # noqa: SLF001
        if sock is None:
            message = "the connection was closed while it was opened"
            raise OSError(message)
        return sock.fileno()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Hold the connection; not used again after an error, as the driver would reconnect unsubscribed."""
        # Before the lock: in a forked child a thread that does not exist any more may hold it.
        self._refuse_if(self._pid != os.getpid(), "a forked child needs a channel of its own")
        with self._lock:
            self._refuse_if(self._over, "the channel is closed")
            try:
                yield
            except DRIVER_ERRORS as error:
                self._over = True
                self._wire.disconnect()
                raise failure(_WHAT, self._url, error) from error

    def _refuse_if(self, condition: bool, why: str) -> None:  # noqa: FBT001 -- it reads as a sentence
        if condition:
            message = f"{_WHAT} on {self._url} failed: {why}; open another"
            raise BackendUnavailable(message)
