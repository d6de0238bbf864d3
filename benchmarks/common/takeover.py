"""Crash takeover: the holder is killed at many instants of its ttl; how late is the next one?

Late is what goes beyond the instant at which the store itself ended the dead holder's hold.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.fleet import NotReadyError, reason
from benchmarks.common.table import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.common.contenders import Way
    from benchmarks.common.fleet import Fleet, Member
    from benchmarks.common.plan import Plan

_GRACE = 10.0
"""Seconds beyond the expiry for which a takeover is awaited."""


class Pair(NamedTuple):
    """One process holds until it is killed, the other waits for that."""

    kind: type[Way]
    port: int
    name: str
    ttl: float

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        if member.number == 1:
            member.wait_for_the_first()
        way = self.kind(self.port, self.name, self.ttl)
        if member.number == 1:
            member.ready()
        way.acquire()
        member.mark(0)
        if member.number == 0:
            member.ready()
        member.linger()


class Case(NamedTuple):
    """One kill.

    Args:
        kind: who contends.
        ttl: of the lease.
        phase: seconds after the grant at which the holder is killed.
    """

    kind: type[Way]
    ttl: float
    phase: float


class Measured(NamedTuple):
    """What takes part, and how a kill is judged.

    Args:
        kinds: the contenders, ours first.
        late: kills the holder of a case, and returns by how many seconds the next one came late.
        reach: up to which part of its ttl a contender's holder is killed.
        notes: what late means here.
        tolerance: seconds by which the next one may seem early, where the store tells its end to both in no order.
    """

    kinds: tuple[type[Way], ...]
    late: Callable[[Case], float]
    reach: Callable[[type[Way]], float]
    notes: str
    tolerance: float = 0.0


def measure(measured: Measured, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(f"takeover from a killed holder, ttl {plan.ttl:g} s, killed at {plan.phases} phases", measured.notes)
    ours = measured.kinds[0]
    for kind in measured.kinds:
        try:
            table.add(kind.label, **_phases(measured, kind, plan))
        except NotReadyError as error:
            if kind is ours:
                raise
            table.add(kind.label, why=reason(error))
    table.gates["each killed holder was replaced, none before its time"] = (
        float(table.rows[ours.label].get("earliest_ms", -math.inf)) >= -measured.tolerance * 1000
    )
    return [table]


def _phases(measured: Measured, kind: type[Way], plan: Plan) -> dict[str, Cell]:
    longest = plan.ttl * measured.reach(kind)
    cases = [Case(kind, plan.ttl, longest * (number + 0.5) / plan.phases) for number in range(plan.phases)]
    late = [measured.late(case) for case in cases]
    return {
        "mean_late_ms": sum(late) / len(late) * 1000,
        "worst_late_ms": max(late) * 1000,
        "earliest_ms": min(late) * 1000,
    }


def until(fleet: Fleet, phase: float) -> int:
    """Return the holder's pid when it has held for that long."""
    fleet.wait_until_ready()
    time.sleep(max(0.0, fleet.marked(0)[0] + phase - time.monotonic()))
    return fleet.pids[0]


def replaced(fleet: Fleet, left: float) -> float:
    """Return when the second process had it; ``left`` is how many seconds the dead one's hold may last yet.

    Raises:
        NotReadyError: it never did.
    """
    deadline = time.monotonic() + left + _GRACE
    while len(times := fleet.marked(0)) < 2 and time.monotonic() < deadline:  # noqa: PLR2004 -- both
        time.sleep(0.01)
    if len(times) < 2:  # noqa: PLR2004 -- both
        message = f"no takeover within {_GRACE:g} s after the expiry"
        raise NotReadyError(message)
    return times[1]
