"""Run the benchmarks.

usage: python -m benchmarks.on_zookeeper [--quick] [--json FILE] [WORKLOAD ...]

From the repository's root, with zookeeper and a Java runtime installed as Debian packages them. Exits with 1 if a gate
fails. Gates hold on any machine; times are to be compared within one run only.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from benchmarks.common.command import Suite, run
from benchmarks.common.plan import QUICK
from benchmarks.on_zookeeper import followers, handover, idle, many, pairs, takeover
from benchmarks.on_zookeeper.server import known, server

if TYPE_CHECKING:
    from zookeeper_ensemble import Ensemble


def _called(ensemble: Ensemble) -> str:
    with socket.create_connection(("127.0.0.1", known(ensemble).port), timeout=10) as wire:
        wire.sendall(b"srvr")
        return wire.recv(4096).decode().partition(",")[0].partition("-")[0]


SUITE = Suite(
    prog="python -m benchmarks.on_zookeeper",
    about="Run the benchmarks.",
    workloads=(pairs, handover, idle, takeover, many, followers),
    server=server,
    called=_called,
    libraries=("kazoo",),
    quick=QUICK._replace(rounds=1, waiters=8, idle=1.0, phases=1, leases=300, watched=5.0),
)

if __name__ == "__main__":
    sys.exit(run(SUITE))
