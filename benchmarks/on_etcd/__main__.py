"""Run the benchmarks.

usage: python -m benchmarks.on_etcd [--quick] [--json FILE] [WORKLOAD ...]

From the repository's root, with etcd and etcdctl on the PATH. Exits with 1 if a gate fails. Gates hold on any machine;
times are to be compared within one run only.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common.command import Suite, run
from benchmarks.common.plan import QUICK
from benchmarks.on_etcd import followers, handover, idle, many, pairs, takeover
from benchmarks.on_etcd.server import server


def _called(_: object) -> str:
    done = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)  # noqa: S607 -- the PATH's
    return done.stdout.partition("\n")[0].replace(" Version:", "")


SUITE = Suite(
    prog="python -m benchmarks.on_etcd",
    about="Run the benchmarks.",
    workloads=(pairs, handover, idle, takeover, many, followers),
    server=server,
    called=_called,
    libraries=("etcd3", "grpcio", "protobuf"),
    quick=QUICK._replace(rounds=1, waiters=8, idle=1.0, phases=1, leases=300, watched=5.0),
)

if __name__ == "__main__":
    sys.exit(run(SUITE))
