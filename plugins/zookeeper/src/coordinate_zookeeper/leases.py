"""Leases: a line of ephemeral nodes for each name. The lowest is the holder; everyone else watches his predecessor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import KazooException, NoNodeError

from coordinate import _wire
from coordinate.errors import BackendUnavailable, CorruptRecord
from coordinate.types import Gone, Grant, Granted, Held, LeaseRecord, LossReason, Renewed, Topic, Unknown
from coordinate_zookeeper import asking, tokens
from coordinate_zookeeper.nodes import entry, in_order, make, name_of
from coordinate_zookeeper.places import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import AcquireAnswer, Owner, RenewAnswer
    from coordinate_zookeeper.nodes import Nodes
    from coordinate_zookeeper.places import Places
    from coordinate_zookeeper.session import Session
    from coordinate_zookeeper.sessions import Sessions
    from coordinate_zookeeper.tokens import Ground
    from coordinate_zookeeper.watch import ZooKeeperWatch


class Leases:
    """All lease operations of one process."""

    def __init__(self, nodes: Nodes, sessions: Sessions, places: Places) -> None:
        self._nodes = nodes
        self._sessions = sessions
        self._places = places

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
                answer = _Request(name, place, floor, watch).answer()
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
        what = f"leave the line for {name!r}"
        if place.path and not place.in_doubt:
            (answer,) = place.session.ask(what, [lambda driver: driver.delete_async(place.path)])
            found = not isinstance(answer, NoNodeError)
        else:
            found = self._remove(name, place.session, place.line, place.owner.nonce)
        self._places.drop(place)
        return found

    @staticmethod
    def _remove(name: str, session: Session, line: str, nonce: str) -> bool:
        """Remove all nodes of a nonce; False if there was none."""
        what = f"release {name!r}"
        _, children = session.ask(
            what, [lambda driver: driver.sync_async(line), lambda driver: driver.get_children_async(line)]
        )
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
        calls = [asking.exists(place.path) for _, place in held]
        try:
            _, *stats = session.ask(
                f"renew {len(held)} leases", [lambda driver: driver.sync_async(self._nodes.root), *calls]
            )
        except BackendUnavailable as error:
            return [Unknown(str(error)) for _ in held]
        number = session.number
        return [self._judge(grant, place, stat, number) for (grant, place), stat in zip(held, stats, strict=True)]

    def _judge(self, grant: Grant, place: Place, stat: Any, number: int | None) -> RenewAnswer:  # noqa: ANN401
        if stat is None or place.overdue:
            self._places.drop(place) if stat is None else None
            return self._gone(grant)
        granted = place.session.granted
        if stat.ephemeralOwner != number or granted <= 0:
            return Unknown("the connection was lost meanwhile")
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
                [lambda driver: driver.get_children_async(line), lambda driver: driver.get_async(line)],
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
                    lambda driver: driver.sync_async(line),
                    lambda driver: driver.get_children_async(line),
                    lambda driver: driver.get_async(line),
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
            [lambda driver: driver.sync_async(parent), lambda driver: driver.get_children_async(parent)],
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
                    lambda driver: driver.sync_async(line),
                    lambda driver: driver.get_children_async(line),
                    lambda driver: driver.get_async(line),
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
            (state,) = session.ask(what, [lambda driver: driver.exists_async(holder)])
            if state is None:
                return 0
            highest = state.czxid
        ground = ground.after_break(highest)
        (results,) = session.ask(
            what, [lambda driver: _write_ground(driver, line, ground, stat.version, removed=holder)]
        )
        return 0 if _failed(results) else ground.broken


def _write_ground(driver: Any, line: str, ground: Ground, version: int, *, removed: str = "", own: str = "") -> Any:  # noqa: ANN401
    """Write a ground if it is unchanged, in one transaction with a removal, or only while a node is there."""
    transaction = driver.transaction()
    if own:
        transaction.check(own, 0)
    transaction.set_data(line, _wire.encode(ground), version)
    if removed:
        transaction.delete(removed)
    return transaction.commit_async()


def _failed(results: list[object]) -> bool:
    return any(isinstance(result, KazooException) for result in results)


def record_of(answer: Any, ground: Ground) -> LeaseRecord:  # noqa: ANN401 -- kazoo's answer to get
    """Return who holds a lease. How long still is known to the ensemble alone: at most the ttl."""
    data, stat = answer
    stored = _wire.decode(LeaseRecord, data)
    return LeaseRecord(stored.name, ground.token(stat.czxid), stored.owner, stored.ttl, stored.ttl)


class _Request:
    """One attempt of one owner to get a lease."""

    def __init__(self, name: str, place: Place, floor: int, watch: ZooKeeperWatch | None) -> None:
        self._name = name
        self._place = place
        self._floor = floor
        self._watch = watch
        self._what = f"acquire {name!r}"
        self._ends = time.monotonic() + place.session.address.timeout

    def answer(self) -> AcquireAnswer:
        """Go on until it is granted or held; every turn of the loop follows a change made by somebody else."""
        place, session = self._place, self._place.session
        if place.grant is not None:
            repeated = self._repeat(place.grant)
            if repeated is not None:
                return repeated
        while True:
            children, found = self._stand_in_line()
            if isinstance(children, NoNodeError) or isinstance(found, NoNodeError):
                place.forget()
                make(session, self._what, place.line)
            else:
                row = in_order(children)
                own = place.path.rpartition("/")[2]
                if own not in row:
                    place.forget()  # expired or broken
                else:
                    ground, stat = tokens.read(found)
                    position = row.index(own)
                    answer = self._grant(ground, stat.version) if position == 0 else self._wait(row, position, ground)
                    if answer is not None:
                        return answer
            if time.monotonic() > self._ends:
                raise session.failure(self._what, f"no end of changes within {session.address.timeout:g} s")

    def _repeat(self, grant: Grant) -> AcquireAnswer | None:
        """Return the same grant again if it still is one."""
        place, session = self._place, self._place.session
        _, stat = session.ask(
            self._what,
            [lambda driver: driver.sync_async(place.line), lambda driver: driver.exists_async(place.path)],
        )
        if stat is None:
            place.forget()
            return None
        if stat.ephemeralOwner != session.number:
            raise session.failure(self._what, "the lease belongs to a session that this process has lost")
        return Granted(grant)

    def _stand_in_line(self) -> tuple[Any, Any]:
        """Return the line and its ground, read after our node was made."""
        place, session = self._place, self._place.session
        looks = [
            lambda driver: driver.get_children_async(place.line),
            lambda driver: driver.get_async(place.line),
        ]
        if place.in_doubt:
            self._find_own()
        if place.path:
            children, found = session.ask(self._what, looks)
            return children, found
        session.ready(self._what, self._ends)
        record = LeaseRecord(self._name, 0, place.owner, session.granted or session.length)
        data = _wire.encode(record)
        place.in_doubt = True
        made, children, found = session.ask(
            self._what,
            [
                lambda driver: driver.create_async(
                    f"{place.line}/{place.entry}", data, ephemeral=True, sequence=True, include_data=True
                ),
                *looks,
            ],
        )
        place.in_doubt = False
        if isinstance(made, NoNodeError):
            return made, made
        path, stat = made
        place.found(path, stat)
        return children, found

    def _find_own(self) -> None:
        """After a lost answer: look for the node that we may have made."""
        place, session = self._place, self._place.session
        _, children = session.ask(
            self._what,
            [lambda driver: driver.sync_async(place.line), lambda driver: driver.get_children_async(place.line)],
        )
        row = in_order(children) if not isinstance(children, NoNodeError) else []
        own = next((child for child in row if child.startswith(place.entry)), None)
        if own is None:
            place.in_doubt = False
            return
        (stat,) = session.ask(self._what, [lambda driver: driver.exists_async(f"{place.line}/{own}")])
        if stat is None:
            place.in_doubt = False
        elif stat.ephemeralOwner != session.number:
            raise session.failure(self._what, "a node of ours belongs to a session that this process has lost")
        else:
            place.found(f"{place.line}/{own}", stat)

    def _grant(self, ground: Ground, version: int) -> AcquireAnswer | None:
        """Take the lease as the first in line; None if the base has to be raised and something came between."""
        place, session = self._place, self._place.session
        if ground.token(place.created) <= self._floor:
            ground = ground.above(self._floor, place.created)
            (results,) = session.ask(
                self._what, [lambda driver: _write_ground(driver, place.line, ground, version, own=place.path)]
            )
            if _failed(results):
                return None
        granted = session.granted
        if granted <= 0:
            raise session.failure(self._what, "the connection was lost meanwhile")
        place.grant = Grant(self._name, ground.token(place.created), place.owner.nonce, granted)
        return Granted(place.grant)

    def _wait(self, row: list[str], position: int, ground: Ground) -> AcquireAnswer | None:
        """Watch the predecessor only; None if he or the holder has gone."""
        place, session = self._place, self._place.session
        before, first = (f"{place.line}/{row[index]}" for index in (position - 1, 0))
        told = None if self._watch is None else self._watch.turn(Topic("lease", self._name, place.owner.nonce), session)
        stat, answer = session.ask(
            self._what,
            [lambda driver: driver.exists_async(before, told), lambda driver: driver.get_async(first)],
        )
        if stat is None or isinstance(answer, NoNodeError):
            return None
        record = record_of(answer, ground)
        return Held(record, record.ttl)
