"""Blocked waiters: what they cost the server and the machine while nothing happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.on_redis import ways
from benchmarks.on_redis.fleet import Fleet, NotReadyError, reason
from benchmarks.on_redis.handover import Crew
from benchmarks.on_redis.server import Requests, cpu_seconds
from benchmarks.on_redis.table import Cell, Table

if TYPE_CHECKING:
    from benchmarks.on_redis.plan import Plan
    from benchmarks.on_redis.ways import Way
    from tests.servers import RedisServer

_SETTLE = 0.5
_TTL = 60.0
"""Seconds; so long that neither the holder's renewals nor the one look of each waiter per ttl fall in between."""


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        f"{plan.waiters} blocked waiters, watched for {plan.idle:g} s",
        "CPU: percent of one processor. Besides, each of our waiters looks once per ttl, as a safety net.",
    )
    for kind in (ways.OURS, ways.BareList, *(ways.PEERS if plan.peers else ())):
        if kind is not ways.PythonRedisLockPlain:
            try:
                table.add(kind.label, **_watched(running, kind, plan))
            except NotReadyError as error:
                if kind is ways.OURS:
                    raise
                table.add(kind.label, why=reason(error))
    table.gates["no request from a blocked waiter"] = table.rows[ways.OURS.label].get("requests") == 0
    return [table]


def _watched(running: RedisServer, kind: type[Way], plan: Plan) -> dict[str, Cell]:
    with Fleet(plan.waiters + 1, Crew(kind, running.port, ways.fresh_name("idle"), _TTL)) as fleet:
        fleet.wait_until_ready()
        time.sleep(_SETTLE)
        pids = fleet.pids[1:]
        watching = Requests(running.port)
        before = sum(map(cpu_seconds, pids)), cpu_seconds(running.pid)
        time.sleep(plan.idle)
        after = sum(map(cpu_seconds, pids)), cpu_seconds(running.pid)
        requests = watching.stop().total()
    waiters, server = ((now - then) / plan.idle * 100 for then, now in zip(before, after, strict=True))
    return {
        "waits": kind.waits,
        "requests": requests,
        "requests/s": requests / plan.idle,
        "waiters_CPU_%": waiters,
        "server_CPU_%": server,
    }
