"""Many leases in one process, see ``benchmarks/common/many.py``, on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import many
from benchmarks.on_redis.server import of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.servers import RedisServer


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    with running.client() as admin:
        kept = many.Kept(
            f"redis://127.0.0.1:{running.port}/0",
            lambda name: admin.delete(f"bench:{{l:{name}}}:lease"),
            lambda start: sum(1 for _ in admin.scan_iter(f"bench:{{l:{start}*}}:lease", count=1000)),
        )
        return many.measure(of(running), kept, plan)
