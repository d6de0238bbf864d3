"""Leases: a line of ephemeral nodes for each name. The lowest is the holder; everyone else watches his predecessor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import NoNodeError

from coordinate.errors import BackendUnavailable, CorruptRecord
from coordinate.types import Gone, Grant, Granted, LeaseRecord, LossReason, Renewed, Unknown
from coordinate_zookeeper import asking, tokens
from coordinate_zookeeper.contending import Request, failed, record_of, write_ground
from coordinate_zookeeper.lines import Lines
from coordinate_zookeeper.nodes import entry, in_order, make, name_of
from coordinate_zookeeper.places import Place
from coordinate_zookeeper.sentry import Sentry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import AcquireAnswer, Owner, RenewAnswer
    from coordinate_zookeeper.nodes import Nodes
    from coordinate_zookeeper.places import Places
    from coordinate_zookeeper.session import Session
    from coordinate_zookeeper.sessions import Sessions
    from coordinate_zookeeper.watch import ZooKeeperWatch


class Leases:
    """All lease operations of one process."""

    def __init__(self, nodes: Nodes, sessions: Sessions, places: Places) -> None:
        self._nodes = nodes
        self._sessions = sessions
        self._places = places
        self._lines = Lines()

    # Getting

    def acquire(self, name: str, owner: Owner, ttl: float, floor: int, watch: ZooKeeperWatch | None) -> AcquireAnswer:
        """Grant, or stay in line if there is a watch to be told by."""
        while True:
            place = self._places.enter(Place(self._nodes.lease(name), owner, self._sessions.of(ttl)))
            with place.lock:
                if self._places.find(place.line, owner.nonce) is not place:
                    continue
                if place.overdue:
                    # It has expired for us; what is left of it may not be revived.
                    self._leave(name, place)
                    continue
                place.stand_by()
                place.queued = place.queued or watch is not None
                answer = Request(name, place, floor, watch, self._lines).answer()
                if isinstance(answer, Granted):
                    place.queued = False
                elif not place.queued:
                    self._leave(name, place)
                place.stand_by()
                return answer

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line: whoever watches us looks for himself."""
        place = self._places.find(self._nodes.lease(name), owner.nonce)
        if place is not None:
            with place.lock:
                self._leave(name, place)

    def release(self, grant: Grant) -> bool:
        """Remove the holder's node; also one that we know nothing of, after a lost answer."""
        line = self._nodes.lease(grant.name)
        place = self._places.find(line, grant.nonce)
        if place is None:
            return self._remove(grant.name, self._sessions.any(), line, grant.nonce)
        with place.lock:
            return self._leave(grant.name, place)

    def _leave(self, name: str, place: Place) -> bool:
        """Remove a place; one whose removal is not confirmed is left to the sweep."""
        place.leaving = True
        place.unwatch()
        what = f"leave the line for {name!r}"
        if place.path and not place.in_doubt:
            (answer,) = place.session.ask(what, [asking.delete(place.path)])
            found = not isinstance(answer, NoNodeError)
            if found and place.rest is not None:
                self._lines.leave(place.session, place.line, place.rest)
        else:
            found = self._remove(name, place.session, place.line, place.owner.nonce)
        self._places.drop(place)
        return found

    @staticmethod
    def _remove(name: str, session: Session, line: str, nonce: str) -> bool:
        """Remove all nodes of a nonce; False if there was none."""
        what = f"release {name!r}"
        _, children = session.ask(what, [asking.sync(line), asking.children(line)])
        if isinstance(children, NoNodeError):
            return False
        ours = [f"{line}/{child}" for child in children if child.startswith(entry(nonce))]
        answers = session.ask(what, [asking.delete(path) for path in ours])
        return any(not isinstance(answer, NoNodeError) for answer in answers)

    # Keeping

    def doubt(self, grant: Grant) -> str | None:
        """Return why the session that keeps a grant's node may be over; no request.

        ZooKeeper's advice to those who lead: what a session protects stops while it is disconnected.
        """
        place = self._places.find(self._nodes.lease(grant.name), grant.nonce)
        if place is None:
            return None
        session = place.session
        if not session.connected:
            return f"no connection to {session.address.shown}"
        if session.number != place.keeper:
            return f"its session with {session.address.shown} has expired"
        return None

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Confirm each node by a round trip on its own session that the leader of the ensemble took part in."""
        answers: dict[int, RenewAnswer] = {}
        by_session: dict[Session, list[tuple[int, Grant, Place]]] = {}
        for number, grant in enumerate(grants):
            place = self._places.find(self._nodes.lease(grant.name), grant.nonce)
            if place is None or place.grant != grant or place.overdue:
                answers[number] = self._gone(grant)
            else:
                by_session.setdefault(place.session, []).append((number, grant, place))
        for session, held in by_session.items():
            confirmed = self._renew(session, [(grant, place) for _, grant, place in held])
            answers |= {number: answer for (number, _, _), answer in zip(held, confirmed, strict=True)}
        return [answers[number] for number in range(len(grants))]

    def _renew(self, session: Session, held: Sequence[tuple[Grant, Place]]) -> list[RenewAnswer]:
        if not session.connected:
            # Waiting for it would hold up the leases of other sessions.
            return [Unknown(f"no connection to {session.address.shown}") for _ in held]
        what = f"renew {len(held)} leases"
        try:
            self._confirm(session, what, [place for _, place in held])
        except BackendUnavailable as error:
            return [Unknown(str(error)) for _ in held]
        return [self._judge(grant, place) for grant, place in held]

    def _confirm(self, session: Session, what: str, places: Sequence[Place]) -> None:
        """Make one round trip through the leader, after which each place's sentry knows whether the node is there.

        Nodes with a sentry cost nothing: the server tells of their end before it answers what was asked later. A
        reconnection ends all sentries, and each is posted anew.
        """
        unwatched = [(place, Sentry()) for place in places if not place.guarded]
        calls = [asking.get(place.path, sentry.end) for place, sentry in unwatched]
        _, *found = session.ask(what, [asking.sync(self._nodes.root), *calls])
        number = session.number
        for (place, sentry), answer in zip(unwatched, found, strict=True):
            sentry.missing = isinstance(answer, NoNodeError)
            sentry.stranger = not sentry.missing and answer[1].ephemeralOwner != number
            place.sentry = sentry

    def _judge(self, grant: Grant, place: Place) -> RenewAnswer:
        sentry, granted = place.sentry, place.session.granted
        if sentry is not None and sentry.missing:
            self._places.drop(place)
            return self._gone(grant)
        if place.overdue:
            return self._gone(grant)
        if not place.guarded or granted <= 0:
            # Removed, or the connection was lost, while we asked: the next renewal, soon, looks at the node.
            return Unknown("something changed meanwhile")
        place.stand_by()
        return Renewed(granted)

    def _gone(self, grant: Grant) -> RenewAnswer:
        """Say why a lease is over; why is for people, so an old answer does."""
        line = self._nodes.lease(grant.name)
        session = self._sessions.any()
        if not session.connected:
            return Gone(LossReason.EXPIRED)
        try:
            children, found = session.ask(
                f"look at {grant.name!r}",
                [asking.children(line), asking.get(line)],
            )
            if isinstance(found, NoNodeError):
                return Gone(LossReason.EXPIRED)
            ground, _ = tokens.read(found)
        except (BackendUnavailable, CorruptRecord):
            return Gone(LossReason.EXPIRED)
        if ground.broken > grant.token:
            return Gone(LossReason.BROKEN)
        others = [child for child in in_order(children) if not child.startswith(entry(grant.nonce))]
        return Gone(LossReason.TAKEN if others else LossReason.EXPIRED)

    # Looking

    def holder(self, name: str) -> LeaseRecord | None:
        """Return who is first in line, as the leader of the ensemble knows it."""
        session, line = self._sessions.any(), self._nodes.lease(name)
        what = f"read the holder of {name!r}"
        ends = time.monotonic() + session.address.timeout
        while True:
            _, children, found = session.ask(
                what,
                [
                    asking.sync(line),
                    asking.children(line),
                    asking.get(line),
                ],
            )
            row = in_order(children) if not isinstance(children, NoNodeError) else []
            if not row or isinstance(found, NoNodeError):
                return None
            ground, _ = tokens.read(found)
            (answer,) = session.ask(what, [asking.get(f"{line}/{row[0]}")])
            if not isinstance(answer, NoNodeError):
                return record_of(answer, ground)
            if time.monotonic() > ends:
                raise session.failure(what, "it changes hands too fast to be read")

    def leases(self, prefix: str) -> list[LeaseRecord]:
        """Return all holders below a prefix."""
        session, parent = self._sessions.any(), self._nodes.leases
        _, children = session.ask(
            "list the leases",
            [asking.sync(parent), asking.children(parent)],
        )
        names = [] if isinstance(children, NoNodeError) else sorted(map(name_of, children))
        found = (self.holder(name) for name in names if name.startswith(prefix))
        return [record for record in found if record is not None]

    def break_lease(self, name: str) -> int:
        """Remove the first node and raise the base, in one transaction."""
        session, line = self._sessions.any(), self._nodes.lease(name)
        what = f"break {name!r}"
        ends = time.monotonic() + session.address.timeout
        while time.monotonic() < ends:
            _, children, found = session.ask(
                what,
                [
                    asking.sync(line),
                    asking.children(line),
                    asking.get(line),
                ],
            )
            if isinstance(children, NoNodeError) or isinstance(found, NoNodeError):
                make(session, what, line)
                continue
            raised = self._break(session, what, line, in_order(children), found)
            if raised:
                return raised
        raise session.failure(what, "it changes hands too fast")

    @staticmethod
    def _break(session: Session, what: str, line: str, row: list[str], found: Any) -> int:  # noqa: ANN401
        """Try to break once; 0 if something has changed meanwhile."""
        ground, stat = tokens.read(found)
        highest = stat.pzxid
        holder = f"{line}/{row[0]}" if row else ""
        if holder:
            (state,) = session.ask(what, [asking.exists(holder)])
            if state is None:
                return 0
            highest = state.czxid
        ground = ground.after_break(highest)
        (results,) = session.ask(
            what, [lambda driver: write_ground(driver, line, ground, stat.version, removed=holder)]
        )
        return 0 if failed(results) else ground.broken
