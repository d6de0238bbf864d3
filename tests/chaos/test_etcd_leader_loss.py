"""Fleets of three that run guarded steps while the ensemble loses its leader: a referee reads what happened."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.testing import eventually
from tests.chaos.judge import Fleet
from tests.chaos.replica import TTL
from tests.stacks.etcd import etcd

if TYPE_CHECKING:
    from pathlib import Path

STEP = "migrate"
DEAD = ("kill", STEP, "inside")
FOREIGN = re.compile(r"Traceback|^[EWIF]\d{4} |grpc[._]|E0000|Exception ", re.MULTILINE)
"""gRPC's own log, and threads that end with an error."""


@pytest.mark.parametrize(("how", "fault"), [("killed", None), ("killed", DEAD), ("paused", DEAD)])
def test_a_leader_lost_in_the_middle_of_a_guarded_step(
    tmp_path: Path, how: str, fault: tuple[str, str, str] | None
) -> None:
    """No two work at once, each step is done once; where the holder dies, too, the next one leads in time."""
    folder, servers = tmp_path / "fleet", tmp_path / "servers"
    folder.mkdir()
    servers.mkdir()
    with etcd(servers, 3) as three:
        leader, before = three.leader(), term(three.url)
        fleet = Fleet(f"{three.url}/chaos", folder, fault)
        try:
            eventually(lambda: begun(fleet), within=60, what="the step")
            if how == "killed":
                leader.kill()
            else:
                leader.signal(signal.SIGSTOP)
            codes = fleet.finish()
        finally:
            fleet.end()
        elections = term(three.url) - before
    fleet.judge(codes)
    history = fleet.history()
    if fault is not None:
        (hurt,) = (int(str(line["t"])) for line in history if line["what"] == "hurt")
        after = [int(str(line["t"])) for line in history if line["what"] == "leading" and int(str(line["t"])) > hurt]
        # One election is what we cause; on a busy machine there may be more, and each new leader gives all server
        # leases their full length again.
        assert elections >= 1
        assert (min(after) - hurt) / 1e9 <= (1 + elections) * TTL + 2.5, (elections, fleet.told())
    errors = "".join(path.read_text() for path in sorted(folder.glob("stderr-*")))
    assert not FOREIGN.search(errors), errors


def term(url: str) -> int:
    """Return how many elections there have been."""
    with connect(url) as coordinator:
        return int(coordinator.backend.describe()["leader"].rpartition(" ")[2])


def begun(fleet: Fleet) -> bool:
    """Return whether somebody works at the step, or was hurt there."""
    return any(line["what"] == "hurt" or (line["what"] == "begin" and line["step"] == STEP) for line in fleet.history())
