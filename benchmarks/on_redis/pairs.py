"""Uncontended pairs, see ``benchmarks/common/pairs.py``, on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import pairs
from benchmarks.common.contenders import Contenders
from benchmarks.on_redis import ways
from benchmarks.on_redis.server import of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.servers import RedisServer


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return one table for each way to place the programs."""
    return pairs.measure(of(running), Contenders(ways.OURS, ways.BareCommands, ways.PEERS), plan)
