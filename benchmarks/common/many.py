"""Many leases in one process: what keeping them alive costs, and whether a loss is told."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.processors import cpu_seconds
from benchmarks.common.table import Cell, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from benchmarks.common.plan import Plan
    from benchmarks.common.server import Server

    from coordinate.lease import Lease

_TTL = 10.0
_VICTIM = 17
"""The lease that somebody deletes meanwhile."""
_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE = 120.0


class Kept(NamedTuple):
    """The leases as the server sees them.

    Args:
        url: of the store.
        delete: removes a lease of this name behind its holder's back.
        living: counts the leases whose names start with this.
        threads: how many the process may have.
    """

    url: str
    delete: Callable[[str], object]
    living: Callable[[str], int]
    threads: int = 2


def measure(server: Server, kept: Kept, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        f"{plan.leases:,} leases in one process, ttl {_TTL:g} s, watched for {plan.watched:g} s",
        "RSS: what the process grew by while it acquired them. One lease is deleted on the server meanwhile.",
    )
    found = _watched(server, kept, plan)
    table.add("coordinate", **found)
    table.gates["0 lost, in the process and on the server"] = found["lost"] == found["missing"] == 0
    table.gates["the deleted lease is reported lost"] = found["deleted_is_told"] == "yes"
    table.gates["renewed by one thread"] = found["threads"] == kept.threads
    return [table]


def _watched(server: Server, kept: Kept, plan: Plan) -> dict[str, Cell]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_hold, args=(theirs, kept.url, plan.leases), daemon=True)
    process.start()
    theirs.close()
    try:
        found: dict[str, Cell] = _answer(ours)
        pid = process.pid or 0
        kept.delete(f"many/{_VICTIM}")
        watching, before = server.watching(), (cpu_seconds(pid), cpu_seconds(server.pid))
        time.sleep(plan.watched)
        after, requests = (cpu_seconds(pid), cpu_seconds(server.pid)), watching()
        client, busy = ((now - then) / plan.watched * 100 for then, now in zip(before, after, strict=True))
        found |= {"requests/s": requests / plan.watched, "CPU_%": client, "server_CPU_%": busy}
        found["missing"] = plan.leases - 1 - kept.living("many/")
        ours.send("report")
        found |= _answer(ours)
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


def _hold(pipe: Connection, url: str, count: int) -> None:
    """Hold many leases; the whole program of the watched process."""
    from coordinate import connect

    coordinator = connect(url, namespace="bench", ttl=_TTL)
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
