"""Hand-over, see ``benchmarks/common/handover.py``, on etcd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import handover
from benchmarks.on_etcd import ways
from benchmarks.on_etcd.server import known

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.stacks.etcd import Etcd


def measure(ensemble: Etcd, plan: Plan) -> list[Table]:
    """Return the table."""
    return handover.measure(known(ensemble).port, ways.QUEUES, plan)
