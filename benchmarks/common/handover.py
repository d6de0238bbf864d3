"""Hand-over: processes wait for one name, each holds it for a millisecond and gives it to the next.

A hand-over lasts from the call of release in one process to the return of acquire in another.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import Fleet, NotReadyError, reason
from benchmarks.common.table import Table

if TYPE_CHECKING:
    from benchmarks.common.contenders import Contenders, Way
    from benchmarks.common.fleet import Member
    from benchmarks.common.plan import Plan

_HOLD = 0.001
_SETTLE = 0.5
"""Seconds after the last process is about to wait: by then all stand in line, and pollers are out of step."""
_ALL_WITHIN = 40.0


class Round(NamedTuple):
    """One measurement, in seconds: until the last one held it, each hand-over; and holds that overlapped."""

    total: float
    each: list[float]
    overlaps: int


class Crew(NamedTuple):
    """The first process holds until told; the others wait."""

    kind: type[Way]
    port: int
    name: str
    ttl: float = 10.0

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        way = self.kind(self.port, self.name, self.ttl)
        if member.number == 0:
            self._lead(way, member)
        else:
            member.wait_for_the_first()
            member.ready()
            way.acquire()
            member.mark(0)
            time.sleep(_HOLD)
        member.mark(1)
        way.release()
        member.linger()

    def _lead(self, way: Way, member: Member) -> None:
        if not way.starts_empty:
            way.acquire()
        member.mark(0)
        member.ready()
        member.wait_for_go()


def measure(port: int, contenders: Contenders, plan: Plan) -> list[Table]:
    """Return the table."""
    limit = contenders.limit
    table = Table(
        f"hand-over to each of {plan.waiters} waiting processes, each holds {_HOLD * 1000:g} ms once",
        f"best of {plan.rounds} interleaved rounds by total; ratio of totals to {limit.label}; p50, p99 of that round.",
    )
    kinds: tuple[type[Way], ...] = contenders.all if plan.peers else contenders.all[:2]
    rounds: dict[type[Way], list[Round]] = {kind: [] for kind in kinds}
    for _ in range(plan.rounds):
        for kind in kinds:
            if kind.label in table.rows:
                continue
            try:
                rounds[kind].append(_round(port, kind, plan.waiters))
            except NotReadyError as error:
                if kind is contenders.ours:
                    raise
                table.add(kind.label, why=reason(error))
    best = {kind: min(found) for kind, found in rounds.items() if found}
    for kind, found in best.items():
        if kind.label not in table.rows:
            cuts = statistics.quantiles(found.each, n=100, method="inclusive")
            table.add(
                kind.label,
                waits=kind.waits,
                total_ms=found.total * 1000,
                ratio=found.total / best[limit].total,
                p50_ms=cuts[49] * 1000,
                p99_ms=cuts[98] * 1000,
                overlaps=sum(each.overlaps for each in rounds[kind]),
            )
    ours = rounds[contenders.ours]
    table.gates["each waiter got it, and no two at once"] = bool(ours) and not any(each.overlaps for each in ours)
    return [table]


def _round(port: int, kind: type[Way], waiters: int) -> Round:
    with Fleet(waiters + 1, Crew(kind, port, fresh_name("handover"))) as fleet:
        fleet.wait_until_ready()
        time.sleep(_SETTLE)
        fleet.go.open()
        held = fleet.wait_until_marked(1, _ALL_WITHIN) - 1
        if held < waiters:
            message = f"{held} of {waiters} had it within {_ALL_WITHIN:g} s"
            raise NotReadyError(message)
        holds = sorted(zip(fleet.marked(0), fleet.marked(1), strict=True))
    each = [after[0] - before[1] for before, after in itertools.pairwise(holds)]
    return Round(holds[-1][1] - holds[0][1], each, sum(gap < 0 for gap in each))
