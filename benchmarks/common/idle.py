"""Blocked waiters: what they cost the server and the machine while nothing happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import Fleet, NotReadyError, reason
from benchmarks.common.handover import Crew
from benchmarks.common.processors import cpu_seconds
from benchmarks.common.table import Cell, Table

if TYPE_CHECKING:
    from benchmarks.common.contenders import Contenders, Way
    from benchmarks.common.plan import Plan
    from benchmarks.common.server import Server

_SETTLE = 0.5
_TTL = 60.0
"""Seconds; so long that neither the holder's renewals nor the one look of each waiter per ttl fall in between."""


def measure(server: Server, contenders: Contenders, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        f"{plan.waiters} blocked waiters, watched for {plan.idle:g} s",
        "CPU: percent of one processor. Besides, each of our waiters looks once per ttl, as a safety net.",
    )
    for kind in contenders.all if plan.peers else contenders.all[:2]:
        try:
            table.add(kind.label, **_watched(server, kind, plan))
        except NotReadyError as error:
            if kind is contenders.ours:
                raise
            table.add(kind.label, why=reason(error))
    table.gates["no request from a blocked waiter"] = table.rows[contenders.ours.label].get("requests") == 0
    return [table]


def _watched(server: Server, kind: type[Way], plan: Plan) -> dict[str, Cell]:
    with Fleet(plan.waiters + 1, Crew(kind, server.port, fresh_name("idle"), _TTL)) as fleet:
        fleet.wait_until_ready()
        time.sleep(_SETTLE)
        pids = fleet.pids[1:]
        watching = server.watching()
        before = sum(map(cpu_seconds, pids)), cpu_seconds(server.pid)
        time.sleep(plan.idle)
        after = sum(map(cpu_seconds, pids)), cpu_seconds(server.pid)
        requests = watching()
    waiters, server = ((now - then) / plan.idle * 100 for then, now in zip(before, after, strict=True))
    return {
        "waits": kind.waits,
        "requests": requests,
        "requests/s": requests / plan.idle,
        "waiters_CPU_%": waiters,
        "server_CPU_%": server,
    }
