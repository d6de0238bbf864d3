"""Waiting: the connection's thread reports events, an eventfd tells the one who waits that there are some."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING

from kazoo.exceptions import KazooException, NoNodeError

from coordinate.backend import News, Watch
from coordinate.errors import BackendUnavailable
from coordinate_zookeeper import asking
from coordinate_zookeeper.head import told_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.interfaces import IAsyncResult

    from coordinate.types import Topic
    from coordinate_zookeeper.nodes import Nodes
    from coordinate_zookeeper.session import Session
    from coordinate_zookeeper.sessions import Sessions

_NOTHING = (0, b"", 0)
_POLL_IN_THE_DARK = 1.0
"""Seconds: without a connection nothing is reported."""


class ZooKeeperWatch(Watch):
    """Reports turns for leases and changes of scopes.

    A watch of ZooKeeper reports once. It is set again first and reported then, so that whoever looks after a
    report misses nothing. After a reconnection everything is reported.
    """

    def __init__(self, nodes: Nodes, sessions: Sessions) -> None:
        self._nodes = nodes
        self._sessions = sessions
        self._session = sessions.any()
        """Whose connection watches the scopes."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pending: set[Topic] = set()
        self._topics: set[Topic] = set()
        self._told: dict[Topic, tuple[int, bytes, int]] = {}
        """Of each scope how many changes were reported, and what its node held at which version, if we know."""
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

    def push(self, topic: Topic, head: bytes = b"", version: int = 0) -> None:
        """Report a topic, and what the node of its scope holds now if that is known; from any thread."""
        with self._lock:
            if not self._closed and topic in self._topics:
                if topic.kind == "markers":
                    self._told[topic] = (self._told.get(topic, _NOTHING)[0] + 1, head, version)
                self._pending.add(topic)
                os.eventfd_write(self._fd, 1)

    def turn(self, topic: Topic, session: Session) -> Callable[[], None]:
        """Return what is to be called when the predecessor in a line has gone."""
        with self._lock:
            self._topics.add(topic)
            if session not in self._attended:
                self._attended.add(session)
                session.attend(self._connected)
        # Also for the end of the connection: who looks then finds out how it is.
        return lambda: self.push(topic)

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
            self._session.ask(f"watch {topic.name!r}", [asking.exists(path, lambda _: self._fired(topic))])
        except BackendUnavailable:
            with self._lock:
                self._armed.discard(topic)
            raise

    def remove(self, topic: Topic) -> None:
        """Stop reporting; a watch that is set is left to fire once more, unheard."""
        with self._lock:
            self._topics.discard(topic)
            self._pending.discard(topic)
            self._told.pop(topic, None)

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

    def news(self, topic: Topic) -> News:
        """Return the record that says done, if it came with the last change of its scope."""
        with self._lock:
            number, head, version = self._told.get(topic, _NOTHING)
        return News(number, told_in(head, version))

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

    # The connection's thread

    def _fired(self, topic: Topic) -> None:
        """Watch a scope again after a change; what was told of it before counts no more."""
        with self._lock:
            if topic not in self._topics:
                self._armed.discard(topic)
                return
            self._told[topic] = (self._told.get(topic, _NOTHING)[0], b"", 0)
        self._look_again(topic)

    def _arm(self, topic: Topic) -> None:
        """Watch a scope that is not watched."""
        with self._lock:
            if topic not in self._topics or topic in self._armed:
                return
            self._armed.add(topic)
        self._look_again(topic)

    def _look_again(self, topic: Topic) -> None:
        """Set the watch, then report; without a connection report at once."""
        if not self._session.connected:
            self._disarm(topic)
            return
        reading = asking.get(self._nodes.scope(topic.name), lambda _: self._fired(topic))
        self._session.spawn(reading, lambda result: self._read(topic, result))

    def _read(self, topic: Topic, result: IAsyncResult) -> None:
        """Report a scope's change with what its node tells; a node that is not there (yet) cannot be watched so."""
        try:
            head, stat = result.get_nowait()
        except NoNodeError:
            asked = asking.exists(self._nodes.scope(topic.name), lambda _: self._fired(topic))
            self._session.spawn(asked, lambda result: self._set_again(topic, result))
        except KazooException:
            self._disarm(topic)
        else:
            # Others look on another session once there is a longer one: its server may be ahead of ours.
            first_hand = self._session is self._sessions.any()
            self.push(topic, head if first_hand else b"", stat.version)

    def _set_again(self, topic: Topic, result: IAsyncResult) -> None:
        try:
            result.get_nowait()
        except KazooException:
            self._disarm(topic)
        else:
            self.push(topic)

    def _disarm(self, topic: Topic) -> None:
        """Report a scope that is not watched: whoever looks now knows how it is, and `_connected` watches again."""
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
