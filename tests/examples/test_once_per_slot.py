"""The example of a job that runs once per schedule, over all hosts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.testing import eventually
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "once_per_slot.py"
LIMIT = 60.0


class Hosts:
    """Hosts that run the job, each a process."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.ran = folder / "ran"
        self.gate = folder / "gate"
        self.gate.touch()
        self.script = folder / "job"
        text = f'echo "$1" >> {self.ran}; while [ ! -e {self.gate} ]; do sleep 0.05; done; exit "$2"\n'
        self.script.write_text(f"#!/bin/sh\n{text}")
        self.script.chmod(0o755)

    def start(self, slot: str, code: int = 0) -> subprocess.Popen[str]:
        """Start the job on one more host."""
        command = [
            sys.executable,
            str(EXAMPLE),
            "--every",
            "3600",
            *(["--slot", slot] if slot else []),
            "invoices",
            "--",
        ]
        return subprocess.Popen(
            [*command, str(self.script), slot or "now", str(code)],
            env={**os.environ, "COORDINATE_URL": self.url, "COORDINATE_TTL": "4"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self) -> list[str]:
        """Return the slots for which the command has begun."""
        return self.ran.read_text().split() if self.ran.exists() else []


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Return hosts with one Redis."""
    with redis_server(tmp_path) as server:
        yield Hosts(tmp_path, server.url)


def ends(children: list[subprocess.Popen[str]]) -> list[int]:
    """Return the exit codes."""
    for child in children:
        child.communicate(timeout=LIMIT)
    return [child.returncode for child in children]


def test_each_slot_runs_once_over_all_hosts(hosts: Hosts) -> None:
    """Four hosts, two slots; a host that comes hours late runs nothing."""
    for slot in ("2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"):
        assert ends([hosts.start(slot) for _ in range(4)]) == [0] * 4
    assert ends([hosts.start("2026-01-01T01:00:00Z"), hosts.start("2026-01-01T00:00:00Z")]) == [0, 0]
    assert hosts.runs() == ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]


def test_the_slot_is_the_hour_of_the_clock(hosts: Hosts) -> None:
    """As it is said."""
    child = hosts.start("")
    out, _ = child.communicate(timeout=LIMIT)
    assert re.fullmatch(r"invoices \d{4}-\d\d-\d\dT\d\d:00:00Z: ran\n", out), out


def test_a_failure_is_everybodys_and_final_and_the_next_slot_runs(hosts: Hosts) -> None:
    """The command's own code on every host."""
    assert ends([hosts.start("2026-01-01T01:00:00Z", 7) for _ in range(3)]) == [7] * 3
    assert hosts.runs() == ["2026-01-01T01:00:00Z"]
    assert ends([hosts.start("2026-01-01T02:00:00Z")]) == [0]


def test_a_host_that_dies_is_replaced_in_the_same_slot(hosts: Hosts) -> None:
    """The command of the dead one is gone before another one begins."""
    hosts.gate.unlink()
    first = hosts.start("2026-01-01T01:00:00Z")
    eventually(lambda: len(hosts.runs()) == 1, within=LIMIT, what="the first run")
    other = hosts.start("2026-01-01T01:00:00Z")
    first.kill()
    eventually(lambda: len(hosts.runs()) == 2, within=LIMIT, what="the second run")
    hosts.gate.touch()
    assert ends([first, other]) == [-signal.SIGKILL, 0]


def test_old_slots_are_forgotten(hosts: Hosts) -> None:
    """Twenty stay, besides the one that has just run."""
    with connect(hosts.url) as coordinator:
        for number in range(25):
            markers = coordinator.markers("jobs/invoices")
            lease = coordinator.lease("jobs/invoices").acquire(5)
            with lease:
                markers.claim(lease, coordinator.backend.store_id)
                markers.done(markers.begin("run", f"2026-01-01T01:{number:02}:00Z"))
        assert ends([hosts.start("2026-01-01T02:00:00Z")]) == [0]
        kept = sorted(record.revision for record in markers.view().records)
    assert len(kept) == 21
    assert kept[0] == "2026-01-01T01:05:00Z"
