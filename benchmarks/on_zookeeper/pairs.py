"""Uncontended pairs, see ``benchmarks/common/pairs.py``, on ZooKeeper, in a process of its own: others fork later.

Ours makes more requests than two: reads go with the writes, on the same connection, and no write waits for them.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from benchmarks.common import pairs
from benchmarks.on_zookeeper import ways
from benchmarks.on_zookeeper.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from benchmarks.on_zookeeper.server import Running
    from zookeeper_ensemble import Ensemble


def measure(ensemble: Ensemble, plan: Plan) -> list[Table]:
    """Return one table for each way to place the programs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (known(ensemble), plan))


def _measured(running: Running, plan: Plan) -> list[Table]:
    tables = pairs.measure(of(running), ways.PAIRS, plan)
    for table in tables:
        table.gates.clear()
    return tables
