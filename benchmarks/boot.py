"""What coordination adds to a boot: three replicas on the stand-in bench, next to its commands one after the other.

usage: python benchmarks/boot.py [--replicas 3] [--runs 3] [--scale 1.0]

Overhead = time from the first start until the last command is running, minus what the leader's bench commands take:
from their own first to last line, and for each the start of its interpreter, measured in the same run. Warm = the same
fleet again, when everything is done. Run from the repository's root.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.acceptance.fleet import EXAMPLE, Fleet


def start_of_a_command(fleet: Fleet) -> float:
    """Return the seconds that the bench's Python takes until a command begins, median of five."""
    bench, times = fleet.containers[0].bench, []
    for _ in range(5):
        began = time.perf_counter()
        command = [bench / "env/bin/python", "-c", "import frappe.utils.bench_helper"]
        subprocess.run(command, cwd=fleet.sites, env=fleet.environ, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def busy(fleet: Fleet) -> float:
    """Return the seconds that the bench commands of the fleet took."""
    total, begun, start = 0.0, {}, start_of_a_command(fleet)
    for line in fleet.history():
        if line["event"] == "begin":
            total += start
            begun[line["pid"]] = line["ns"]
        elif line["event"] == "end" and line["pid"] in begun:
            total += (line["ns"] - begun.pop(line["pid"])) / 1e9
    return total


def boot(fleet: Fleet) -> tuple[float, list[float]]:
    """Start all; return the total and each replica's own time until its command ran."""
    started = time.time()
    codes = fleet.boot()
    if any(codes):
        sys.exit(f"a replica failed: {codes}\n{fleet.told()}")
    ends = [container.started + container.handed_over_after() for container in fleet.containers]
    return max(ends) - started, [container.handed_over_after() for container in fleet.containers]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", default="1.0", help="1.0: a twentieth of the real bench's times")
    options = parser.parse_args()
    overhead, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        command = [sys.executable, EXAMPLE / "redis_standin.py", "--port-file", port_file]
        with subprocess.Popen(command) as redis:
            while not port_file.exists():
                time.sleep(0.01)
            for number in range(options.runs):
                path = Path(folder) / str(number)
                path.mkdir()
                with Fleet(path, options.replicas, int(port_file.read_text()), STANDIN_SCALE=options.scale) as fleet:
                    total, _ = boot(fleet)
                    overhead.append(total - busy(fleet))
                    print(f"cold: {total:.2f} s, of which bench commands {busy(fleet):.2f} s")
                    warm += boot(fleet)[1]
            redis.terminate()
    print(f"coordination overhead of a cold boot, median: {statistics.median(overhead):.2f} s")
    print(f"warm start to hand-over, median {statistics.median(warm):.2f} s, worst {max(warm):.2f} s")


if __name__ == "__main__":
    main()
