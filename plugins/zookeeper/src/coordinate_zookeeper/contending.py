"""Contending: one attempt of one owner to get a lease, from his entry into the line to the grant."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import KazooException, NoNodeError

from coordinate import _wire
from coordinate._clock import SYSTEM
from coordinate.types import Grant, Granted, Held, LeaseRecord, Topic
from coordinate_zookeeper import asking, tokens
from coordinate_zookeeper.lines import Rest, Sight, Turn
from coordinate_zookeeper.nodes import in_order, make

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import AcquireAnswer
    from coordinate_zookeeper.lines import Lines
    from coordinate_zookeeper.places import Place
    from coordinate_zookeeper.session import Call
    from coordinate_zookeeper.tokens import Ground
    from coordinate_zookeeper.watch import ZooKeeperWatch

_FRESH = 0.5
"""Seconds for which an answer that came before we asked is as good as one to us; its age counts against the lease."""


def write_ground(driver: Any, line: str, ground: Ground, version: int, *, removed: str = "", own: str = "") -> Any:  # noqa: ANN401
    """Write a ground if it is unchanged, in one transaction with a removal, or only while a node is there."""
    transaction = driver.transaction()
    if own:
        transaction.check(own, 0)
    transaction.set_data(line, _wire.encode(ground), version)
    if removed:
        transaction.delete(removed)
    return transaction.commit_async()


def failed(results: list[object]) -> bool:
    """Return whether a transaction was refused."""
    return any(isinstance(result, KazooException) for result in results)


def record_of(answer: Any, ground: Ground) -> LeaseRecord:  # noqa: ANN401 -- kazoo's answer to get
    """Return who holds a lease. How long still is known to the ensemble alone: at most the ttl."""
    data, stat = answer
    stored = _wire.decode(LeaseRecord, data)
    return LeaseRecord(stored.name, ground.token(stat.czxid), stored.owner, stored.ttl, stored.ttl)


class Request:
    """One attempt of one owner to get a lease."""

    def __init__(self, name: str, place: Place, floor: int, watch: ZooKeeperWatch | None, lines: Lines) -> None:
        self._name = name
        self._place = place
        self._lines = lines
        self._floor = floor
        self._watch = watch
        self._what = f"acquire {name!r}"
        self._entered = SYSTEM.now()
        self._ends = time.monotonic() + place.session.address.timeout

    def answer(self) -> AcquireAnswer:
        """Go on until it is granted or held; every turn of the loop follows a change made by somebody else."""
        place, session = self._place, self._place.session
        if place.grant is not None:
            repeated = self._repeat(place.grant)
            if repeated is not None:
                return repeated
        known = self._by_what_is_known()
        if known is not None:
            return known
        while True:
            children, sight = self._stand_in_line()
            if sight is None:
                place.forget()
                make(session, self._what, place.line)
            else:
                row = in_order(children)
                own = place.path.rpartition("/")[2]
                if own not in row:
                    place.forget()  # expired or broken
                else:
                    position = row.index(own)
                    answer = (
                        self._grant(sight, alone=row == [own]) if not position else self._wait(row, position, sight)
                    )
                    if answer is not None:
                        return answer
            if time.monotonic() > self._ends:
                raise session.failure(self._what, f"no end of changes within {session.address.timeout:g} s")

    def _by_what_is_known(self) -> AcquireAnswer | None:
        """Grant with one request where nothing else has to be read; None: look."""
        place, turn = self._place, self._place.turn
        if place.in_doubt:
            return None
        if not place.path:
            return self._enter_again()
        if turn is None or not turn.has_fired:
            return None
        place.turn = None
        return self._take_over(turn)

    def _enter_again(self) -> AcquireAnswer | None:
        """Enter a line that we left empty: if our number is the next one, nobody has entered since."""
        place = self._place
        rest = self._lines.enter(place.session, place.line)
        if rest is None or not rest.sight.holds:
            return None
        (made,) = self._enter([])
        if made and place.number == rest.number + 1 and rest.sight.holds:
            return self._grant(rest.sight, alone=True)
        return None

    def _take_over(self, turn: Turn) -> AcquireAnswer | None:
        """Become the first, now that whoever was before us is gone, if we were still there ourselves then."""
        place, age = self._place, self._entered - turn.asked_at
        stat, sight = turn.stat, turn.sight
        ours = stat is not None and stat.czxid == place.created and stat.ephemeralOwner == place.session.number
        if not ours or age > _FRESH or turn.sentry.ended or sight is None or not sight.holds:
            return None
        place.sentry = turn.sentry
        return self._grant(sight, alone=False, age=age)

    def _repeat(self, grant: Grant) -> AcquireAnswer | None:
        """Return the same grant again if it still is one."""
        place, session = self._place, self._place.session
        _, stat = session.ask(
            self._what,
            [asking.sync(place.line), asking.exists(place.path)],
        )
        if stat is None:
            place.forget()
            return None
        if stat.ephemeralOwner != session.number:
            raise session.failure(self._what, "the lease belongs to a session that this process has lost")
        return Granted(grant)

    def _stand_in_line(self) -> tuple[Any, Sight | None]:
        """Return the line, and its ground if there is a line; read after our node was made."""
        place, session = self._place, self._place.session
        sentry = self._lines.sentry(session, place.line)
        looks = [asking.children(place.line), asking.get(place.line, None if sentry is None else sentry.end)]
        if place.in_doubt:
            self._find_own()
        children, found = session.ask(self._what, looks) if place.path else self._enter(looks)[1:]
        if isinstance(children, NoNodeError) or isinstance(found, NoNodeError):
            return [], None
        ground, stat = tokens.read(found)
        return children, Sight(ground, stat.version, sentry)

    def _enter(self, looks: Sequence[Call]) -> list[Any]:
        """Make our node, and look; return whether it is there, and what was seen."""
        place, session = self._place, self._place.session
        session.ready(self._what, self._ends)
        data = _wire.encode(LeaseRecord(self._name, 0, place.owner, session.granted or session.length))
        place.in_doubt = True
        made, *seen = session.ask(self._what, [asking.enter(f"{place.line}/{place.entry}", data), *looks])
        place.in_doubt = False
        if isinstance(made, NoNodeError):
            return [False, *seen]
        path, stat = made
        place.found(path, stat)
        return [True, *seen]

    def _find_own(self) -> None:
        """After a lost answer: look for the node that we may have made."""
        place, session = self._place, self._place.session
        _, children = session.ask(
            self._what,
            [asking.sync(place.line), asking.children(place.line)],
        )
        row = in_order(children) if not isinstance(children, NoNodeError) else []
        own = next((child for child in row if child.startswith(place.entry)), None)
        if own is None:
            place.in_doubt = False
            return
        (stat,) = session.ask(self._what, [asking.exists(f"{place.line}/{own}")])
        if stat is None:
            place.in_doubt = False
        elif stat.ephemeralOwner != session.number:
            raise session.failure(self._what, "a node of ours belongs to a session that this process has lost")
        else:
            place.found(f"{place.line}/{own}", stat)

    def _grant(self, sight: Sight, *, alone: bool, age: float = 0.0) -> AcquireAnswer | None:
        """Take the lease as the first in line; None if the base has to be raised and something came between."""
        place, session, ground = self._place, self._place.session, sight.ground
        if ground.token(place.created) <= self._floor:
            ground = ground.above(self._floor, place.created)
            (results,) = session.ask(
                self._what, [lambda driver: write_ground(driver, place.line, ground, sight.version, own=place.path)]
            )
            if failed(results):
                return None
        granted = session.granted
        if granted <= 0:
            raise session.failure(self._what, "the connection was lost meanwhile")
        place.rest = Rest(place.number, sight) if alone else None
        place.grant = Grant(self._name, ground.token(place.created), place.owner.nonce, granted)
        return Granted(place.grant, max(0.0, age))

    def _wait(self, row: list[str], position: int, sight: Sight) -> AcquireAnswer | None:
        """Watch the predecessor only; None if he or the holder has gone."""
        place = self._place
        before, first = (f"{place.line}/{row[index]}" for index in (position - 1, 0))
        turn = self._watch_for(before)
        if turn is not None:
            turn.sight = sight if position == 1 and sight.sentry is not None else None
        looks = [asking.get(before, turn), *([asking.get(first)] if position > 1 else [])]
        answers = place.session.ask(self._what, looks)
        if any(isinstance(answer, NoNodeError) for answer in answers):
            return None
        record = record_of(answers[-1], sight.ground)
        return Held(record, record.ttl)

    def _watch_for(self, before: str) -> Turn | None:
        """Return the watch on the one before us: the same as long as it is he; None: nobody wants to be told."""
        place = self._place
        if self._watch is None:
            return None
        told = self._watch.turn(Topic("lease", self._name, place.owner.nonce), place.session)
        if place.turn is None or place.turn.has_fired or place.turn.before != before:
            place.unwatch()
            place.turn = Turn(place, before, told)
        return place.turn
