"""Waiting: kazoo's threads report events, an eventfd tells the one who waits that there are some."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING

from kazoo.exceptions import KazooException

from coordinate.backend import Watch
from coordinate.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.interfaces import IAsyncResult
    from kazoo.protocol.states import WatchedEvent

    from coordinate.types import Topic
    from coordinate_zookeeper.nodes import Nodes
    from coordinate_zookeeper.session import Session
    from coordinate_zookeeper.sessions import Sessions

_POLL_IN_THE_DARK = 1.0
"""Seconds: without a connection nothing is reported."""


class ZooKeeperWatch(Watch):
    """Reports turns for leases and changes of scopes.

    A watch of ZooKeeper reports once. It is set again first and reported then, so that whoever looks after a
    report misses nothing. After a reconnection everything is reported.
    """

    def __init__(self, nodes: Nodes, sessions: Sessions) -> None:
        self._nodes = nodes
        self._session = sessions.any()
        """Whose connection watches the scopes."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pending: set[Topic] = set()
        self._topics: set[Topic] = set()
        self._armed: set[Topic] = set()
        """Topics whose scope has a watch of ours: a second one would double every report."""
        self._attended: set[Session] = {self._session}
        self._closed = False
        self._session.attend(self._connected)

    @property
    def poll_interval(self) -> float:
        """Return for ever while connected: ZooKeeper then tells of everything."""
        return math.inf if all(session.connected for session in list(self._attended)) else _POLL_IN_THE_DARK

    @poll_interval.setter
    def poll_interval(self, value: float) -> None:
        raise AttributeError(value)

    def fileno(self) -> int:
        """Return the eventfd."""
        return self._fd

    def push(self, topic: Topic) -> None:
        """Report a topic; from any thread."""
        with self._lock:
            if not self._closed and topic in self._topics:
                self._pending.add(topic)
                os.eventfd_write(self._fd, 1)

    def turn(self, topic: Topic, session: Session) -> Callable[[WatchedEvent], None]:
        """Return what is to be called when the predecessor in a line has gone."""
        with self._lock:
            self._topics.add(topic)
            if session not in self._attended:
                self._attended.add(session)
                session.attend(self._connected)
        # Also for the end of the connection: who looks then finds out how it is.
        return lambda _: self.push(topic)

    def add(self, topic: Topic) -> None:
        """Watch a scope; a turn for a lease needs no more than `acquire` with this watch."""
        self._refuse_forked()
        with self._lock:
            self._topics.add(topic)
            if topic.kind != "markers" or topic in self._armed:
                return
            self._armed.add(topic)
        path = self._nodes.scope(topic.name)
        try:
            self._session.ask(
                f"watch {topic.name!r}",
                [lambda driver: driver.exists_async(path, lambda _: self._fired(topic))],
            )
        except BackendUnavailable:
            with self._lock:
                self._armed.discard(topic)
            raise

    def remove(self, topic: Topic) -> None:
        """Stop reporting; a watch that is set is left to fire once more, unheard."""
        with self._lock:
            self._topics.discard(topic)
            self._pending.discard(topic)

    def drain(self) -> frozenset[Topic]:
        """Return what was reported since the last call."""
        self._refuse_forked()
        with self._lock:
            pending = frozenset(self._pending)
            self._pending.clear()
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)
            return pending

    def close(self) -> None:
        """Give up."""
        if self._pid != os.getpid():
            return  # the lock may be held by a thread that does not exist here
        for session in list(self._attended):
            session.neglect(self._connected)
        with self._lock:
            if not self._closed:
                self._closed = True
                self._topics.clear()
                os.close(self._fd)

    def _refuse_forked(self) -> None:
        if self._pid != os.getpid():
            message = f"waiting on {self._session.address.shown} failed: a forked child needs a channel of its own"
            raise BackendUnavailable(message)

    # kazoo's threads

    def _fired(self, topic: Topic) -> None:
        with self._lock:
            self._armed.discard(topic)
        self._arm(topic)

    def _arm(self, topic: Topic) -> None:
        """Watch a scope again, then report it; without a connection report it at once."""
        with self._lock:
            if topic not in self._topics or topic in self._armed:
                return
            self._armed.add(topic)
        if not self._session.connected:
            with self._lock:
                self._armed.discard(topic)
            self.push(topic)
            return
        path = self._nodes.scope(topic.name)
        self._session.spawn(
            lambda driver: driver.exists_async(path, lambda _: self._fired(topic)),
            lambda result: self._set_again(topic, result),
        )

    def _set_again(self, topic: Topic, result: IAsyncResult) -> None:
        try:
            result.get_nowait()
        except KazooException:
            with self._lock:
                self._armed.discard(topic)
        self.push(topic)

    def _connected(self, session: Session) -> None:
        """Report everything, and watch again what the former connection watched."""
        with self._lock:
            topics = list(self._topics)
        for topic in topics:
            if topic.kind == "lease":
                self.push(topic)
            elif session is self._session:
                self._arm(topic)
