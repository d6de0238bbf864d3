"""Our own nodes in the lines: what we asked for, what came of it, until when we stand by it.

A request whose answer is lost may be carried out later. So a place is entered here before anything is asked, and
leaves only when the ensemble has confirmed that no node of it is left; the session's pulse sees to that, and takes
away the nodes of leases that nobody has renewed for their ttl: kazoo alone would keep them alive for ever.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from kazoo.exceptions import KazooException, NoNodeError

from coordinate_zookeeper import asking
from coordinate_zookeeper.nodes import MARK, entry

if TYPE_CHECKING:
    from kazoo.interfaces import IAsyncResult
    from kazoo.protocol.states import ZnodeStat

    from coordinate.types import Grant, Owner
    from coordinate_zookeeper.lines import Rest, Turn
    from coordinate_zookeeper.sentry import Sentry
    from coordinate_zookeeper.session import Session


class Place:
    """One owner in one line.

    Args:
        line: the node of the lease.
        owner: who.
        session: whose node it is.
    """

    def __init__(self, line: str, owner: Owner, session: Session) -> None:
        self.line = line
        self.owner = owner
        self.session = session
        self.lock = threading.Lock()
        """Held during a request for this owner: two at once could make two nodes."""
        self.entry = entry(owner.nonce)
        self.turn: Turn | None = None
        """The watch on the one before us, once there was one."""
        self.forget()
        self.queued = False
        """Somebody waits here until he says otherwise."""
        self.leaving = False
        self._until = time.monotonic() + session.length
        self._asked_at = 0.0

    def forget(self) -> None:
        """Start again: there is no node."""
        self.path = ""
        self.created = 0
        self.keeper = 0
        """The session that keeps the node."""
        self.grant: Grant | None = None
        self.sentry: Sentry | None = None
        """Posted by the first renewal on each connection."""
        self.unwatch()
        self.rest: Rest | None = None
        """Set while nobody was behind us when we got the lease: what we leave when we go."""
        self.in_doubt = False
        """A node may have been created, or be created yet, that we know nothing of."""

    def found(self, path: str, stat: ZnodeStat) -> None:
        """Note our node, the change that created it, and the session that keeps it."""
        self.path = path
        self.created = stat.czxid
        self.keeper = stat.ephemeralOwner
        self.in_doubt = False

    def stand_by(self) -> None:
        """Want the node for another ttl from now on."""
        length = self.session.length
        self._until = time.monotonic() + max(length, self.session.granted, self.grant.ttl if self.grant else 0.0)

    def unwatch(self) -> None:
        """Stop watching the one before us."""
        turn, self.turn = self.turn, None
        if turn is not None:
            self.session.unwatch(turn.before, turn)

    @property
    def number(self) -> int:
        """Return our number in the line: how many nodes were ever made in it before ours."""
        return int(self.path.rpartition(MARK)[2])

    @property
    def guarded(self) -> bool:
        """Return whether our node is there for all that the connection has told so far."""
        sentry = self.sentry
        return sentry is not None and not (sentry.ended or sentry.missing or sentry.stranger)

    @property
    def overdue(self) -> bool:
        """Return whether nobody stands by it any more."""
        return self.leaving or (not self.queued and time.monotonic() > self._until)

    def due(self) -> bool:
        """Return whether it is time to ask for its removal; True at most once a second."""
        now = time.monotonic()
        if not self.overdue or now < self._asked_at + 1.0:
            return False
        self._asked_at = now
        return True


class Places:
    """All places of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[tuple[str, str], Place] = {}

    def enter(self, place: Place) -> Place:
        """Return the place of that owner in that line: this one, if there is none yet."""
        with self._lock:
            return self._places.setdefault((place.line, place.owner.nonce), place)

    def find(self, line: str, nonce: str) -> Place | None:
        """Return an owner's place in a line."""
        return self._places.get((line, nonce))

    def drop(self, place: Place) -> None:
        """Forget a place of which no node is left."""
        with self._lock:
            if self._places.get((place.line, place.owner.nonce)) is place:
                del self._places[place.line, place.owner.nonce]

    def held(self, session: Session) -> bool:
        """Return whether leases are held in a session, or may be."""
        with self._lock:
            return any(
                place.session is session and (place.grant is not None or place.in_doubt) and not place.leaving
                for place in self._places.values()
            )

    def sweep(self, session: Session) -> None:
        """Ask for the removal of nodes that nobody stands by; never blocks."""
        with self._lock:
            due = [place for place in self._places.values() if place.session is session and place.due()]
        for place in due:
            # Whoever is about to leave, and to enter again under the same nonce, does it himself.
            if place.lock.acquire(blocking=False):
                try:
                    if self.find(place.line, place.owner.nonce) is place:
                        self._remove(place)
                finally:
                    place.lock.release()

    def _remove(self, place: Place) -> None:
        if place.path:
            path = place.path
            place.session.spawn(asking.delete(path), lambda result: self._removed(place, result))
        else:
            # It is asked for on the session that may have created it, so after that.
            place.session.spawn(asking.children(place.line), lambda result: self._listed(place, result))

    def _listed(self, place: Place, result: IAsyncResult) -> None:
        try:
            children = result.get_nowait()
        except NoNodeError:
            children = []
        except KazooException:
            return  # the next sweep asks again
        ours = [child for child in children if child.startswith(place.entry)]
        if not ours:
            self._gone(place)
        for child in ours:
            path = f"{place.line}/{child}"
            place.session.spawn(asking.delete(path), lambda result: self._removed(place, result))

    def _removed(self, place: Place, result: IAsyncResult) -> None:
        try:
            result.get_nowait()
        except NoNodeError:
            pass
        except KazooException:
            return  # the next sweep asks again
        self._gone(place)

    def _gone(self, place: Place) -> None:
        if place.overdue:
            self.drop(place)
