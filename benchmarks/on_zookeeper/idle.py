"""Blocked waiters, see ``benchmarks/common/idle.py``, on ZooKeeper.

The server does not tell pings from requests, so a bare client that only keeps its session alive is counted beside ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import idle
from benchmarks.on_zookeeper import ways
from benchmarks.on_zookeeper.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from zookeeper_ensemble import Ensemble


def measure(ensemble: Ensemble, plan: Plan) -> list[Table]:
    """Return the table."""
    tables = idle.measure(of(known(ensemble)), ways.QUEUES, plan)
    for table in tables:
        ours, bare = (float(table.rows[kind.label]["requests"]) for kind in (ways.Coordinate, ways.BareQueue))
        table.gates.clear()
        # Pings come at random instants of their period; twice the bare client's would be requests.
        table.gates["no more packets than the pings of bare sessions"] = ours <= 2 * bare + plan.waiters
    return tables
