"""Crash takeover: the holder is killed at many instants of its ttl; how late is the next one?

Late is what goes beyond the expiry: the holder is stopped first, so that it cannot renew any more, then the server is
asked how long the key still lives, then the holder is killed.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.on_redis import ways
from benchmarks.on_redis.fleet import Fleet, NotReadyError, reason
from benchmarks.on_redis.table import Cell, Table

if TYPE_CHECKING:
    from benchmarks.on_redis.fleet import Member
    from benchmarks.on_redis.plan import Plan
    from benchmarks.on_redis.ways import Way
    from tests.servers import RedisServer

_STOPPED = 0.01
"""Seconds after which nothing of a stopped process is under way any more."""
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


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        f"takeover from a killed holder, ttl {plan.ttl:g} s, killed at {plan.phases} phases",
        "late: beyond what the server said, at the kill, that the key still lives. Renewed where the library renews.",
    )
    for kind in (ways.OURS, *(ways.PEERS if plan.peers else ())):
        if kind is not ways.PythonRedisLockPlain:
            try:
                table.add(kind.label, **_phases(running, kind, plan))
            except NotReadyError as error:
                if kind is ways.OURS:
                    raise
                table.add(kind.label, why=reason(error))
    table.gates["each killed holder was replaced, none before its time"] = (
        float(table.rows[ways.OURS.label].get("earliest_ms", -1)) >= 0
    )
    return [table]


def _phases(running: RedisServer, kind: type[Way], plan: Plan) -> dict[str, Cell]:
    # The last phases lie beyond the ttl of a holder that renews, and beyond the life of one that does not.
    longest = plan.ttl * (1.3 if kind in {ways.OURS, ways.PythonRedisLock} else 0.85)
    late = [_late(running, kind, plan.ttl, longest * (number + 0.5) / plan.phases) for number in range(plan.phases)]
    return {
        "mean_late_ms": sum(late) / len(late) * 1000,
        "worst_late_ms": max(late) * 1000,
        "earliest_ms": min(late) * 1000,
    }


def _late(running: RedisServer, kind: type[Way], ttl: float, phase: float) -> float:
    name = ways.fresh_name("takeover")
    with Fleet(2, Pair(kind, running.port, name, ttl)) as fleet, running.client() as admin:
        fleet.wait_until_ready()
        time.sleep(max(0.0, fleet.marked(0)[0] + phase - time.monotonic()))
        holder = fleet.pids[0]
        os.kill(holder, signal.SIGSTOP)
        time.sleep(_STOPPED)
        asked = time.monotonic()
        left = admin.pttl(kind.key_of(name))
        os.kill(holder, signal.SIGKILL)
        if left < 0:
            message = f"{phase:.2f} s after it was granted there was no key any more"
            raise NotReadyError(message)
        fleet.wait_until_marked(0, left / 1000 + _GRACE)
        times = fleet.marked(0)
        if len(times) < 2:  # noqa: PLR2004 -- both
            message = f"no takeover within {_GRACE:g} s after the expiry"
            raise NotReadyError(message)
    return times[1] - (asked + left / 1000)
