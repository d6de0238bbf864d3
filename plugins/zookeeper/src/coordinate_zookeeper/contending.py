"""Contending: one attempt of one owner to get a lease, from his entry into the line to the grant."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import KazooException, NoNodeError

from coordinate import _wire
from coordinate.types import Grant, Granted, Held, LeaseRecord, Topic
from coordinate_zookeeper import asking, tokens
from coordinate_zookeeper.nodes import in_order, make

if TYPE_CHECKING:
    from coordinate.types import AcquireAnswer
    from coordinate_zookeeper.places import Place
    from coordinate_zookeeper.tokens import Ground
    from coordinate_zookeeper.watch import ZooKeeperWatch


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
            [asking.sync(place.line), asking.exists(place.path)],
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
            asking.children(place.line),
            asking.get(place.line),
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

    def _grant(self, ground: Ground, version: int) -> AcquireAnswer | None:
        """Take the lease as the first in line; None if the base has to be raised and something came between."""
        place, session = self._place, self._place.session
        if ground.token(place.created) <= self._floor:
            ground = ground.above(self._floor, place.created)
            (results,) = session.ask(
                self._what, [lambda driver: write_ground(driver, place.line, ground, version, own=place.path)]
            )
            if failed(results):
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
            [asking.exists(before, told), asking.get(first)],
        )
        if stat is None or isinstance(answer, NoNodeError):
            return None
        record = record_of(answer, ground)
        return Held(record, record.ttl)
