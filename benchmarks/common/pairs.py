"""Acquire and release, one thread, nobody else: what a lock costs when it is free.

Client and server share one processor: then a round trip costs what the programs do, not what it takes to wake an idle
processor, and rounds agree. A second table has one processor for each.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import reason
from benchmarks.common.processors import bound
from benchmarks.common.table import Cell, Table

if TYPE_CHECKING:
    from benchmarks.common.contenders import Contenders, Way
    from benchmarks.common.plan import Plan
    from benchmarks.common.server import Server

_TTL = 30.0
_COUNTED = 50
_BLOCK = 50
"""Pairs between looks at the clock."""


class Round(NamedTuple):
    """One measurement: pairs per second, and the client's processor time for each."""

    rate: float
    cpu: float


def measure(server: Server, contenders: Contenders, plan: Plan) -> list[Table]:
    """Return one table for each way to place the programs."""
    first, last = plan.processors
    tables = [_table(server, contenders, plan, "client and server on one processor", (first, first))]
    if last != first:
        tables.append(_table(server, contenders, plan, "client and server on a processor each", (first, last)))
    return tables


def _table(server: Server, contenders: Contenders, plan: Plan, where: str, processors: tuple[int, int]) -> Table:
    table = Table(
        f"acquire + release, one thread, {where}",
        f"best of {plan.rounds} interleaved rounds; ratio to the bare commands; ours with token, quarantine, renewal.",
    )
    opened = _open(server.port, contenders, table)
    with bound(server.pid, processors):
        requests = {way: _requests(server, way) for way in opened}
        rounds: dict[Way, list[Round]] = {way: [] for way in opened}
        for _ in range(plan.rounds):
            for way, found in rounds.items():
                found.append(_round(way, plan.seconds))
    best = {way: max(found) for way, found in rounds.items()}
    bare = next(best[way].rate for way in best if isinstance(way, contenders.limit))
    for way, found in best.items():
        table.add(way.label, **_cells(found, bare, requests[way]))
        if isinstance(way, contenders.ours):
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


def _open(port: int, contenders: Contenders, table: Table) -> list[Way]:
    opened: list[Way] = []
    for kind in contenders.all:
        try:
            way = kind(port, fresh_name("pairs"), _TTL)
            for _ in range(_BLOCK):
                way.acquire()
                way.release()
        except Exception as error:
            if kind in {contenders.ours, contenders.limit}:
                raise
            table.add(kind.label, why=reason(error))
        else:
            opened.append(way)
    return opened


def _requests(server: Server, way: Way) -> float:
    way.acquire()  # not counted: a silence before it makes us ask the server who it is
    way.release()
    counted = server.watching()
    for _ in range(_COUNTED):
        way.acquire()
        way.release()
    return counted() / _COUNTED


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
