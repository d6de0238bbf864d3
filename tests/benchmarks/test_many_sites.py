"""The benchmark of many sites runs. Never a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The first child ends when the second one has; that one says more than a pipe holds.
CHATTY = """
import subprocess, sys
sys.path.insert(0, "benchmarks")
import many_sites

class Fleet:
    gate = subprocess.PIPE

    def start(self):
        script = "read line" if self.gate is subprocess.PIPE else "head -c 1000000 /dev/zero >&2; echo done"
        output = subprocess.PIPE if self.gate is subprocess.PIPE else self.gate
        child = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.PIPE)
        self.gate, child.stdin = child.stdin, None
        return child

many_sites.boot(Fleet(), 2)
"""


def test_the_benchmark_of_many_sites_runs() -> None:
    """Three sites, no sleeps: everybody serves each time."""
    command = [sys.executable, "benchmarks/many_sites.py", "--sites", "3", "--scale", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["3 sites on 1", "3 sites on 4"]


def test_replicas_that_say_much_do_not_stand_still() -> None:
    """Each log is read while the others run, whichever of them ends first."""
    subprocess.run([sys.executable, "-c", CHATTY], cwd=ROOT, capture_output=True, timeout=60, check=True)
