"""The benchmark of many sites runs. Never a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_of_many_sites_runs() -> None:
    """Three sites, no sleeps: everybody serves each time."""
    command = [sys.executable, "benchmarks/many_sites.py", "--sites", "3", "--scale", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["3 sites on 1", "3 sites on 4"]
