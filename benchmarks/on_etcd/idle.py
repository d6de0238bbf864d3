"""Blocked waiters, see ``benchmarks/common/idle.py``, on etcd: requests beyond the keepalives of server leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import idle
from benchmarks.on_etcd import ways
from benchmarks.on_etcd.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.stacks.etcd import Etcd


def measure(ensemble: Etcd, plan: Plan) -> list[Table]:
    """Return the table."""
    return idle.measure(of(known(ensemble), keepalive=False), ways.QUEUES, plan)
