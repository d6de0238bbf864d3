"""Run the benchmarks.

usage: python -m benchmarks.on_redis [--quick] [--json FILE] [WORKLOAD ...]

From the repository's root, with redis-server on the PATH. Exits with 1 if a gate fails. Gates hold on any machine;
times are to be compared within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.on_redis import followers, handover, idle, many, pairs, start, takeover
from benchmarks.on_redis.plan import FULL, QUICK
from benchmarks.on_redis.server import server

_WORKLOADS = {
    module.__name__.rpartition(".")[2]: module for module in (pairs, handover, idle, takeover, many, followers, start)
}
_SHOWN = ("redis", "hiredis", "python-redis-lock", "tooz", "sherlock", "pottery")


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_redis", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all of it runs, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there as well")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"some of: {', '.join(_WORKLOADS)}")
    options = parser.parse_args()
    unknown = set(options.workloads) - set(_WORKLOADS)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(_WORKLOADS)}")
    found = []
    with server() as running:
        print(_where(running.client().info("server")["redis_version"]), flush=True)
        for name in options.workloads or _WORKLOADS:
            for table in _WORKLOADS[name].measure(running, QUICK if options.quick else FULL):
                print(table.text(), flush=True)
                found.append({"workload": name, **asdict(table)})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(all(table["gates"].values()) for table in found) else 1


def _where(redis_version: str) -> str:
    versions = [f"{name} {_version(name)}" for name in _SHOWN]
    return (
        f"redis-server {redis_version}, Python {platform.python_version()}, {os.cpu_count()} processors, load"
        f" {os.getloadavg()[0]:.1f} at the start; {', '.join(versions)}.\n"
        "The machine may be shared: compare within one table only, by ratio.\n"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
