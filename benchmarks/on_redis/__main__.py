"""Run the benchmarks.

usage: python -m benchmarks.on_redis [--quick] [--json FILE] [WORKLOAD ...]

From the repository's root, with redis-server on the PATH. Exits with 1 if a gate fails. Gates hold on any machine;
times are to be compared within one run only.
"""

from __future__ import annotations

import sys

from benchmarks.common.command import Suite, run
from benchmarks.on_redis import followers, handover, idle, many, pairs, start, takeover
from benchmarks.on_redis.server import server

SUITE = Suite(
    prog="python -m benchmarks.on_redis",
    about="Run the benchmarks.",
    workloads=(pairs, handover, idle, takeover, many, followers, start),
    server=server,
    called=lambda running: f"redis-server {running.client().info('server')['redis_version']}",
    libraries=("redis", "hiredis", "python-redis-lock", "tooz", "sherlock", "pottery"),
)

if __name__ == "__main__":
    sys.exit(run(SUITE))
