"""The benchmarks on Redis run, say what they found, and find what has to hold on any machine. Never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
WITHIN = 240
"""Seconds: it takes 40 on a quiet machine, and this bound is for one that hangs."""
Found = dict[str, list[dict[str, Any]]]


def run(path: Path) -> Found:
    """Return what a quick run finds: the tables of each workload."""
    command = [sys.executable, "-m", "benchmarks.on_redis", "--quick", "--json", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert path.exists(), done.stdout + done.stderr
    tables: Found = {}
    for table in json.loads(path.read_text()):
        tables.setdefault(table["workload"], []).append(table)
    assert done.returncode == int(not all(good for each in tables.values() for good in gates(each).values()))
    return tables


def gates(tables: list[dict[str, Any]]) -> dict[str, bool]:
    """Return all gates of a workload."""
    return {what: good for table in tables for what, good in table["gates"].items()}


def ours(tables: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Return our own rows of a workload."""
    return [row for table in tables for label, row in table["rows"].items() if label.startswith("coordinate")]


def _a_pair_takes_two_requests(found: Found) -> None:
    """One to acquire, one to release; token, quarantine and renewal cost none."""
    assert [row["requests/pair"] for row in ours(found["pairs"])] == [2.0] * len(found["pairs"])
    assert all(row["ratio"] > 0 for row in ours(found["pairs"]))


def _every_waiter_gets_its_turn_and_no_two_at_once(found: Found) -> None:
    """Holds of different processes do not overlap."""
    (row,) = ours(found["handover"])
    assert row["overlaps"] == 0
    assert row["total_ms"] > 16, "16 holds of a millisecond each take longer than that"


def _blocked_waiters_and_followers_ask_for_nothing(found: Found) -> None:
    """No poll, from waiters for a lease and for a marker."""
    assert [row["requests"] for row in ours(found["idle"])] == [0]
    assert [row["idle_requests"] for row in ours(found["followers"])] == [0]


def _each_killed_holder_is_replaced_and_none_before_its_time(found: Found) -> None:
    """The next one comes after the expiry that the server had told."""
    (row,) = ours(found["takeover"])
    assert 0 <= row["earliest_ms"] <= row["mean_late_ms"] <= row["worst_late_ms"]


def _a_thousand_leases_are_kept_by_one_thread_and_a_lost_one_is_told(found: Found) -> None:
    """Those that nobody touched are held in the process and on the server."""
    (row,) = ours(found["many"])
    assert (row["lost"], row["missing"], row["deleted_is_told"], row["threads"]) == (0, 0, "yes", 2)


def _every_gate_holds(found: Found) -> None:
    """Also those that no test above looks at; a workload with neither gates nor rows has not run."""
    failed = {what: name for name, tables in found.items() for what, good in gates(tables).items() if not good}
    assert not failed
    assert {name for name, tables in found.items() if all(table["rows"] for table in tables)} == {
        "pairs",
        "handover",
        "idle",
        "takeover",
        "many",
        "followers",
        "start",
    }


@pytest.mark.timeout(WITHIN + 30)
def test_the_benchmarks_run_and_find_what_holds_on_any_machine(tmp_path: Path) -> None:
    """One test: the run is what takes a minute, and each worker of the suite would repeat it."""
    found = run(tmp_path / "found.json")
    _a_pair_takes_two_requests(found)
    _every_waiter_gets_its_turn_and_no_two_at_once(found)
    _blocked_waiters_and_followers_ask_for_nothing(found)
    _each_killed_holder_is_replaced_and_none_before_its_time(found)
    _a_thousand_leases_are_kept_by_one_thread_and_a_lost_one_is_told(found)
    _every_gate_holds(found)
