"""The benchmarks on ZooKeeper run, and find what has to hold on any machine. Never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).parents[2]
WITHIN = 200
"""Seconds: it takes 25 on a quiet machine, and this bound is for one that hangs."""


def found(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of each workload of a quick run, in which every gate holds."""
    command = [sys.executable, "-m", "benchmarks.on_zookeeper", "--quick", "--json", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert path.exists(), done.stdout + done.stderr
    tables: dict[str, list[dict[str, Any]]] = {}
    for table in json.loads(path.read_text()):
        assert all(table["gates"].values()), table
        tables.setdefault(table["workload"], []).append(table)
    assert done.returncode == 0
    return tables


@pytest.mark.timeout(WITHIN + 30)
def test_the_benchmarks_run_and_find_what_holds_on_any_machine(tmp_path: Path) -> None:
    """No overlap, nothing but pings while nothing happens, one session for many leases, a deleted one is told."""
    tables = found(tmp_path / "found.json")
    assert list(tables) == ["pairs", "handover", "idle", "takeover", "many", "followers"]
    ours = {
        name: [row for table in each for label, row in table["rows"].items() if label.startswith("coordinate")]
        for name, each in tables.items()
    }
    assert [(row["overlaps"], row["total_ms"] > 8) for row in ours["handover"]] == [(0, True)]
    (many,) = ours["many"]
    assert (many["lost"], many["missing"], many["deleted_is_told"]) == (0, 0, "yes")
