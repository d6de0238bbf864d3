"""Program starts, as in ``benchmarks/start_up.py``, on our server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common.table import Table
from benchmarks.start_up import HELD, SET, medians

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from tests.servers import RedisServer


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        "program starts", f"medians of {plan.starts} starts, in turn, from the start until the program is there."
    )
    programs = {
        "import coordinate, against an empty program": ("import coordinate; TELL", "TELL"),
        "lease held, against import redis + SET": (HELD.format(url=running.url), SET.format(url=running.url)),
    }
    for label, (ours, theirs) in programs.items():
        mine, other = medians(ours, theirs, plan.starts)
        table.add(label, ours_ms=mine, theirs_ms=other, difference_ms=mine - other, ratio=mine / other)
    return [table]
