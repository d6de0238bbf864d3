"""Acquire and release, one thread, nobody else: what a lock costs when it is free.

Client and server share one processor: then a round trip costs what the programs do, not what it takes to wake an idle
processor, and rounds agree. A second table has one processor for each.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.on_redis import ways
from benchmarks.on_redis.fleet import reason
from benchmarks.on_redis.server import Requests
from benchmarks.on_redis.table import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.on_redis.plan import Plan
    from benchmarks.on_redis.ways import Way
    from tests.servers import RedisServer

_TTL = 30.0
_COUNTED = 50
_BLOCK = 50
"""Pairs between looks at the clock."""


class Round(NamedTuple):
    """One measurement: pairs per second, and the client's processor time for each."""

    rate: float
    cpu: float


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return one table for each way to place the programs."""
    first, last = plan.processors
    tables = [_table(running, plan, "client and server on one processor", (first, first))]
    if last != first:
        tables.append(_table(running, plan, "client and server on a processor each", (first, last)))
    return tables


def _table(running: RedisServer, plan: Plan, where: str, processors: tuple[int, int]) -> Table:
    table = Table(
        f"acquire + release, one thread, {where}",
        f"best of {plan.rounds} interleaved rounds; ratio to the bare commands; ours with token, quarantine, renewal.",
    )
    with _bound(running.pid, processors):
        open_ways = _open(running.port, table)
        requests = {way: _requests(running.port, way) for way in open_ways}
        rounds: dict[Way, list[Round]] = {way: [] for way in open_ways}
        for _ in range(plan.rounds):
            for way, found in rounds.items():
                found.append(_round(way, plan.seconds))
    best = {way: max(found) for way, found in rounds.items()}
    bare = next(best[way].rate for way in best if isinstance(way, ways.BareCommands))
    for way, found in best.items():
        table.add(way.label, **_cells(found, bare, requests[way]))
        if isinstance(way, ways.OURS):
            table.gates["2 requests per pair"] = requests[way] == 2  # noqa: PLR2004 -- the goal
    return table


def _cells(found: Round, bare: float, requests: float) -> dict[str, Cell]:
    return {
        "pairs/s": found.rate,
        "ratio": found.rate / bare,
        "us/pair": 1e6 / found.rate,
        "client_CPU_us/pair": found.cpu * 1e6,
        "requests/pair": requests,
    }


def _open(port: int, table: Table) -> list[Way]:
    opened: list[Way] = []
    for kind in (ways.OURS, ways.BareCommands, *ways.PEERS):
        try:
            way = kind(port, ways.fresh_name("pairs"), _TTL)
            for _ in range(_BLOCK):
                way.acquire()
                way.release()
        except Exception as error:
            if kind in {ways.OURS, ways.BareCommands}:
                raise
            table.add(kind.label, why=reason(error))
        else:
            opened.append(way)
    return opened


def _requests(port: int, way: Way) -> float:
    way.acquire()  # not counted: a silence before it makes us ask the server who it is
    way.release()
    watching = Requests(port)
    for _ in range(_COUNTED):
        way.acquire()
        way.release()
    return watching.stop().total() / _COUNTED


def _round(way: Way, seconds: float) -> Round:
    way.acquire()  # outside the clock, as above
    way.release()
    pairs, began, busy = 0, time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(_BLOCK):
            way.acquire()
            way.release()
        pairs += _BLOCK
    return Round(pairs / took, (time.process_time() - busy) / pairs)


@contextlib.contextmanager
def _bound(pid: int, processors: tuple[int, int]) -> Iterator[None]:
    """Bind this process and the server's to one processor each."""
    before = {each: os.sched_getaffinity(each) for each in (0, pid)}
    try:
        for each, processor in zip((0, pid), processors, strict=True):
            os.sched_setaffinity(each, {processor})
        yield
    finally:
        for each, mask in before.items():
            os.sched_setaffinity(each, mask)
