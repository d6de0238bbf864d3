"""Many leases in one process, see ``benchmarks/common/many.py``, on etcd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import many
from benchmarks.on_etcd import ways
from benchmarks.on_etcd.server import known, of, requests

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.stacks.etcd import Etcd


def measure(ensemble: Etcd, plan: Plan) -> list[Table]:
    """Return the table."""
    running = known(ensemble)

    def living(start: str) -> int:
        return len(ensemble.control("get", ways.key_of(start).decode(), "--prefix", "--keys-only").stdout.split())

    kept = many.Kept(ways.url(running.port), lambda name: ensemble.control("del", ways.key_of(name).decode()), living)
    before = requests(running.port)
    tables = many.measure(of(running), kept, plan)
    after = requests(running.port)
    leases = after.get("LeaseGrant", 0) - before.get("LeaseGrant", 0)
    (row,) = tables[0].rows.values()
    row["server_leases"] = leases
    tables[0].gates["one server lease for all"] = leases == 1
    return tables
