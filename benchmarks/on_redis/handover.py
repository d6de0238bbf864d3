"""Hand-over, see ``benchmarks/common/handover.py``, on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import handover
from benchmarks.common.contenders import Contenders
from benchmarks.on_redis import ways

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.servers import RedisServer


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    return handover.measure(running.port, Contenders(ways.OURS, ways.BareList, ways.WAITING_PEERS), plan)
