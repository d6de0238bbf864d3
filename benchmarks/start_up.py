"""Start-up, side by side, in one run: whole processes, median of many, next to the bare client library.

usage: python benchmarks/start_up.py [--runs 20] [--redis redis://127.0.0.1:6379/0]

Prints ratios and differences; bare times of a busy machine mean nothing. Each pair of programs runs in turn. In
both, the clock stops where the program says TELL: what an interpreter does at its end is not start-up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

HELD = "from coordinate import connect; lease = connect({url!r}).lease('bench'); lease.acquire(); TELL; lease.release()"
SET = "import redis; redis.Redis.from_url({url!r}).set('bench', 1); TELL"


def once(code: str) -> float:
    """Return how many milliseconds a fresh interpreter takes to the mark in a piece of code."""
    reader, writer = os.pipe()
    command = [sys.executable, "-I", "-c", code.replace("TELL", f"import os; os.write({writer}, b'+')")]
    started = time.perf_counter()
    with subprocess.Popen(command, pass_fds=[writer]) as process, os.fdopen(reader, "rb") as pipe:
        os.close(writer)
        done = pipe.read(1)
        took = time.perf_counter() - started
    if not done or process.returncode:
        sys.exit(f"it failed: {code}")
    return took * 1000


def medians(ours: str, theirs: str, runs: int) -> tuple[float, float]:
    """Return the median of each program's starts in milliseconds; they start in turn."""
    pairs = [(once(ours), once(theirs)) for _ in range(runs + 2)][2:]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, other


def compare(label: str, ours: str, theirs: str, runs: int) -> None:
    """Print the medians' difference and ratio."""
    mine, other = medians(ours, theirs, runs)
    print(f"{label:52} {mine - other:+7.1f} ms   ratio {mine / other:5.2f}")


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--redis", help="URL of a running server; without it the Redis row is left out")
    options = parser.parse_args()
    compare("import coordinate  against an empty program", "import coordinate; TELL", "TELL", options.runs)
    with tempfile.TemporaryDirectory() as folder:
        url = f"file://{folder}"
        compare(
            "file:// lease held  against import filelock", HELD.format(url=url), "import filelock; TELL", options.runs
        )
    if options.redis:
        lines = HELD.format(url=options.redis), SET.format(url=options.redis)
        compare("redis:// lease held  against import redis + SET", *lines, options.runs)


if __name__ == "__main__":
    main()
