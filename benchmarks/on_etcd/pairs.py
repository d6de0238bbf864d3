"""Uncontended pairs, see ``benchmarks/common/pairs.py``, on etcd.

In a process of its own: other workloads fork, which gRPC does not survive.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

from benchmarks.common import pairs
from benchmarks.on_etcd import ways
from benchmarks.on_etcd.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from benchmarks.on_etcd.server import Running
    from tests.stacks.etcd import Etcd


def measure(ensemble: Etcd, plan: Plan) -> list[Table]:
    """Return one table for each way to place the programs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (known(ensemble), plan))


def _measured(running: Running, plan: Plan) -> list[Table]:
    return pairs.measure(of(running), ways.PAIRS, plan)
