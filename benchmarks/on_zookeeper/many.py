"""Many leases in one process, see ``benchmarks/common/many.py``, on ZooKeeper: one session for all."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from benchmarks.common import many
from benchmarks.on_zookeeper import ways
from benchmarks.on_zookeeper.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from zookeeper_ensemble import Ensemble

_LINES = "/coordinate/bench/leases"


def measure(ensemble: Ensemble, plan: Plan) -> list[Table]:
    """Return the table."""
    running = known(ensemble)
    admin = ways.client(running.port, 30.0)

    def line(name: str) -> str:
        from coordinate._names import encode

        return f"{_LINES}/{encode(name)}"

    def delete(name: str) -> None:
        for child in admin.get_children(line(name)):
            admin.delete(f"{line(name)}/{child}")

    def living(start: str) -> int:
        from coordinate._names import encode

        names = [name for name in admin.get_children(_LINES) if name.startswith(encode(start.rstrip("/")))]
        return sum(bool(admin.get_children(f"{_LINES}/{name}")) for name in names)

    before = connections(running.port)
    kept = many.Kept(ways.url(running.port), delete, living, threads=6)
    tables = many.measure(of(running), kept, plan)
    tables[0].gates.pop("renewed by one thread", None)
    tables[0].gates["one session for all"] = connections(running.port) <= before + 1
    admin.stop()
    admin.close()
    return tables


def connections(port: int) -> int:
    """Return how many clients are connected, this question not counted."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(b"srvr")
        answer = b"".join(iter(lambda: wire.recv(4096), b"")).decode()
    return int(answer.partition("Connections: ")[2].split()[0]) - 1
