"""What is known of a line without asking again: its ground, for as long as nobody has told that it has changed.

ZooKeeper tells of a change before it answers anything that was asked after it, and `coordinate_zookeeper.handler` keeps
that order. So whoever has read a ground and set a watch on it may go by what he read, if he makes one request first and
nothing has been told when it is answered.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from kazoo.exceptions import KazooException
from kazoo.protocol.states import EventType

from coordinate._clock import SYSTEM
from coordinate_zookeeper import asking
from coordinate_zookeeper.sentry import Sentry

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.interfaces import IAsyncResult
    from kazoo.protocol.states import WatchedEvent, ZnodeStat

    from coordinate_zookeeper.places import Place
    from coordinate_zookeeper.session import Session
    from coordinate_zookeeper.tokens import Ground

MOST = 1000
"""Lines that one process watches: each costs it and the server some hundred bytes until the line changes."""


class Sight(NamedTuple):
    """A line's ground as it was read, with its version, and the sentry that was posted then; None: there is none."""

    ground: Ground
    version: int
    sentry: Sentry | None

    @property
    def holds(self) -> bool:
        """Return whether the ground is as it was read, for all that the connection has told so far."""
        return self.sentry is not None and not self.sentry.ended


class Turn:
    """A waiter's watch on the one before him; he has one, however often he looks.

    When that was the holder, nobody is before him any more. One request has still to be made, to know that he is there
    himself. The connection's thread makes it, before it wakes anybody.

    Args:
        place: of the waiter.
        before: the node that is watched.
        told: called when there is something to look at.
    """

    def __init__(self, place: Place, before: str, told: Callable[[], None]) -> None:
        self._place = place
        self._told = told
        self.before = before
        self.sight: Sight | None = None
        """The line's ground, if it is watched and only the holder is before us."""
        self.sentry = Sentry()
        """Posted at our own node by that request."""
        self.has_fired = False
        self.asked_at = 0.0
        self.stat: ZnodeStat | None = None
        """Our own node, seen after the holder's had gone."""

    def __call__(self, event: WatchedEvent) -> None:
        """Note an event; from the connection's thread."""
        self.has_fired = True
        place = self._place
        if place.leaving or place.turn is not self:
            return  # nobody waits here any more
        if event.type == EventType.DELETED and self.sight is not None:
            self.asked_at = SYSTEM.now()
            # Not "exists": that would leave a watch also on a node that is gone.
            place.session.spawn(asking.get(place.path, self.sentry.end), self._heard)
        else:
            self._told()

    def _heard(self, result: IAsyncResult) -> None:
        with contextlib.suppress(KazooException):
            _, self.stat = result.get_nowait()
        self._told()


class Rest(NamedTuple):
    """A line that we have left empty: the number of our node, which was alone in it, and what we saw."""

    number: int
    sight: Sight


class Lines:
    """The lines that one process watches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sentries: dict[tuple[Session, str], Sentry] = {}
        self._rests: dict[tuple[Session, str], Rest] = {}

    def sentry(self, session: Session, line: str) -> Sentry | None:
        """Return the sentry of a line, to be posted with every reading of its ground; None: there are too many."""
        with self._lock:
            sentry = self._sentries.get((session, line))
            if sentry is None and not self._has_room():
                return None
            if sentry is None or sentry.ended:
                sentry = self._sentries[session, line] = Sentry()
            return sentry

    def _has_room(self) -> bool:
        if len(self._sentries) >= MOST:
            self._sentries = {key: sentry for key, sentry in self._sentries.items() if not sentry.ended}
            self._rests = {key: rest for key, rest in self._rests.items() if rest.sight.holds}
        return len(self._sentries) < MOST

    def leave(self, session: Session, line: str, rest: Rest) -> None:
        """Note that a line is empty: our node was alone in it, and is confirmed to be gone."""
        if rest.sight.holds:
            with self._lock:
                self._rests[session, line] = rest

    def enter(self, session: Session, line: str) -> Rest | None:
        """Return what we left, once: the next one in it may be somebody else."""
        with self._lock:
            return self._rests.pop((session, line), None)
