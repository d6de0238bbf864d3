"""Hand-over, see ``benchmarks/common/handover.py``, on ZooKeeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import handover
from benchmarks.on_zookeeper import ways
from benchmarks.on_zookeeper.server import known

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from zookeeper_ensemble import Ensemble


def measure(ensemble: Ensemble, plan: Plan) -> list[Table]:
    """Return the table."""
    return handover.measure(known(ensemble).port, ways.QUEUES, plan)
