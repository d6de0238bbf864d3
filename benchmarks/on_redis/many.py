"""Many leases in one process: what keeping them alive costs, and whether a loss is told."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.on_redis.server import Requests, cpu_seconds
from benchmarks.on_redis.table import Cell, Table

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.on_redis.plan import Plan
    from tests.servers import RedisServer

    from coordinate.lease import Lease

_TTL = 10.0
_VICTIM = 17
"""The lease that somebody deletes meanwhile."""
_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE = 120.0


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        f"{plan.leases:,} leases in one process, ttl {_TTL:g} s, watched for {plan.watched:g} s",
        "RSS: what the process grew by while it acquired them. One lease is deleted on the server meanwhile.",
    )
    found = _watched(running, plan)
    table.add("coordinate", **found)
    table.gates["0 lost, in the process and on the server"] = found["lost"] == found["missing"] == 0
    table.gates["the deleted lease is reported lost"] = found["deleted_is_told"] == "yes"
    table.gates["renewed by one thread"] = found["threads"] == 2  # noqa: PLR2004 -- it, and the main one
    return [table]


def _watched(running: RedisServer, plan: Plan) -> dict[str, Cell]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_hold, args=(theirs, running.port, plan.leases), daemon=True)
    process.start()
    theirs.close()
    try:
        found: dict[str, Cell] = _answer(ours)
        pid = process.pid or 0
        with running.client() as admin:
            admin.delete(f"bench:{{l:many/{_VICTIM}}}:lease")
            watching, before = Requests(running.port), (cpu_seconds(pid), cpu_seconds(running.pid))
            time.sleep(plan.watched)
            after, requests = (cpu_seconds(pid), cpu_seconds(running.pid)), watching.stop()
            living = sum(1 for _ in admin.scan_iter("bench:{l:many/*}:lease", count=1000))
        client, server = ((now - then) / plan.watched * 100 for then, now in zip(before, after, strict=True))
        found["requests/s"] = requests.total() / plan.watched
        found["CPU_%"], found["server_CPU_%"] = client, server
        ours.send("report")
        found |= _answer(ours)
        found["missing"] = plan.leases - 1 - living
    finally:
        process.kill()
        process.join()
    return found


def _answer(pipe: Connection) -> dict[str, Cell]:
    if not pipe.poll(_PATIENCE):
        message = f"the process with the leases said nothing for {_PATIENCE:g} s"
        raise RuntimeError(message)
    answer: dict[str, Cell] = pipe.recv()  # EOFError when it has failed; it told why itself
    return answer


def _hold(pipe: Connection, port: int, count: int) -> None:
    """Hold many leases; the whole program of the watched process."""
    from coordinate import connect

    coordinator = connect(f"redis://127.0.0.1:{port}/0", namespace="bench", ttl=_TTL)
    first = coordinator.lease("warm-up").acquire()
    before, began = _rss(), time.monotonic()
    leases: list[Lease] = [coordinator.lease(f"many/{number}").acquire() for number in range(count)]
    took = time.monotonic() - began
    pipe.send({"acquired_s": took, "bytes_each": (_rss() - before) / count})
    pipe.recv()
    others = [lease for number, lease in enumerate(leases) if number != _VICTIM]
    pipe.send(
        {
            "lost": sum(not lease.held for lease in [first, *others]),
            "deleted_is_told": "no" if leases[_VICTIM].lost is None else "yes",
            "threads": threading.active_count(),
        }
    )
    pipe.recv()


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
