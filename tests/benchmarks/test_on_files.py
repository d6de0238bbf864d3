"""The benchmarks of files run, and find what has to hold on any machine. Never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(150)
def test_the_benchmarks_of_files_run_and_find_what_holds_on_any_machine(tmp_path: Path) -> None:
    """Everybody gets it, no two at once; a killed holder is replaced; every follower notices."""
    found = tmp_path / "found.json"
    workloads = ["handover", "takeover", "followers"]
    command = [sys.executable, "-m", "benchmarks.on_files", "--quick", "--json", found, *workloads]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert found.exists(), done.stdout + done.stderr
    tables = json.loads(found.read_text())
    assert [table["workload"] for table in tables] == workloads
    assert all(all(table["gates"].values()) for table in tables), done.stdout
    assert tables[0]["rows"]["coordinate"]["total_ms"] > 16, "16 holds of a millisecond each take longer"
    assert done.returncode == 0
