"""The waiting channel: one subscribed connection for each server on which something is waited for."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING

from coordinate.backend import News, Watch
from coordinate.backends.redis.ear import Ear
from coordinate.backends.redis.failures import DRIVER_ERRORS, failure
from coordinate.backends.redis.markers import readable
from coordinate.backends.redis.wires import sever
from coordinate.errors import BackendUnavailable, CoordinateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.backends.redis.keys import Keys
    from coordinate.backends.redis.node import Node
    from coordinate.backends.redis.topology import Topology
    from coordinate.types import Topic

_WHAT = "waiting"


class RedisWatch(Watch):
    """Listens for turns of its process's waiters and for changes of watched scopes, where their keys are.

    A lost connection is reported by `drain`, at the latest when TCP's keepalive notices it, and so is a change of
    the servers (failover, resharding). What was published while nobody listened is lost: whoever opens a new
    channel looks for itself first.
    """

    def __init__(self, server: Topology, keys: Keys, pass_on: Callable[[Topic], None]) -> None:
        self.poll_interval = server.patience
        self._server = server
        self._keys = keys
        self._pass_on = pass_on
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._ears: dict[Node, Ear] = {}
        self._poll = select.epoll()
        self._over = False
        self._moved = False
        server.attend(self)
        try:
            self.channel("")
        except BaseException:
            self._poll.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that stands for all connections."""
        return self._poll.fileno()

    def channel(self, name: str) -> bytes:
        """Return the channel on which the server of a lease can tell this process its turn.

        Raises:
            BackendUnavailable: the server did not confirm the subscription.
        """
        with self._talking():
            return self._ear(self._keys.lease(name).lease if name else b"").channel

    def _ear(self, key: bytes) -> Ear:
        node = self._server.node(key)
        ear = self._ears.get(node)
        if ear is None:
            ear = self._ears[node] = Ear(node, self._keys.channel())
            self._poll.register(ear.number, select.EPOLLIN)
        return ear

    def add(self, topic: Topic) -> None:
        """Subscribe to a scope's changes; turns for a lease need no more than `acquire` with this watch.

        Raises:
            BackendUnavailable: the server did not confirm it.
        """
        if topic.kind != "markers":
            return
        channel = self._keys.scope(topic.name).changed
        with self._talking():
            self._ear(channel).add(channel, topic)

    def remove(self, topic: Topic) -> None:
        """Unsubscribe from a scope's changes.

        Raises:
            BackendUnavailable: the channel is broken.
        """
        if topic.kind != "markers":
            return
        channel = self._keys.scope(topic.name).changed
        with self._talking():
            for ear in self._ears.values():
                ear.remove(channel)

    def drain(self) -> frozenset[Topic]:
        """Return what was published since the last call.

        Raises:
            BackendUnavailable: a connection is lost, the servers have changed, or this is a forked child.
        """
        with self._talking():
            self._refuse_if(self._moved, "the servers have changed")
            return frozenset(topic for ear in self._ears.values() for topic in ear.hear())

    def news(self, topic: Topic) -> News:
        """Return the record that was published when it was stored as done, if it came last."""
        with self._lock:
            found = [ear.news[topic] for ear in self._ears.values() if topic in ear.news]
        if self._over or not found:
            return News()
        number, data = found[-1]
        return News(number, readable(data) if data.startswith(b"{") else None)

    def sever(self) -> None:
        """Break the channel from outside, because the servers have changed; takes no lock."""
        self._moved = True
        for ear in list(self._ears.values()):
            sever(ear.wire)

    def close(self) -> None:
        """Give up; turns that nobody took go to the next waiter, if the server can still be reached."""
        if self._pid != os.getpid():
            # The lock may be held by a thread that does not exist here. Only this process's copies are closed.
            self._disconnect()
            return
        turns = self._last_turns()
        with self._lock:
            self._over = True
            self._disconnect()
        for topic in turns:
            with contextlib.suppress(CoordinateError):
                self._pass_on(topic)

    def _last_turns(self) -> set[Topic]:
        turns: set[Topic] = set()
        with self._lock:
            for ear in self._ears.values():
                if not self._over:
                    with contextlib.suppress(*DRIVER_ERRORS):
                        ear.fall_silent()
                turns |= {topic for topic in ear.pending if topic.kind == "lease"}
                ear.pending = set()
        return turns

    def _disconnect(self) -> None:
        for ear in self._ears.values():
            ear.wire.disconnect()
        if not self._poll.closed:
            self._poll.close()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Hold the connections; none is used again after an error."""
        # Before the lock: in a forked child a thread that does not exist any more may hold it.
        self._refuse_if(self._pid != os.getpid(), "a forked child needs a channel of its own")
        with self._lock:
            self._refuse_if(self._over, "the channel is closed")
            try:
                yield
            except DRIVER_ERRORS as error:
                self._over = True
                for ear in self._ears.values():
                    sever(ear.wire)
                raise failure(_WHAT, self._server.url, error) from error

    def _refuse_if(self, condition: bool, why: str) -> None:  # noqa: FBT001 -- it reads as a sentence
        if condition:
            message = f"{_WHAT} on {self._server.url} failed: {why}; open another"
            raise BackendUnavailable(message)
