"""The main job while its lease store fails over in the middle of a migration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.testing import eventually
from tests.acceptance.fleet import Fleet
from tests.stacks.sentinel import sentinel_stack

if TYPE_CHECKING:
    from pathlib import Path


def test_a_primary_killed_in_the_middle_of_migrate_changes_nothing(tmp_path: Path, redis_port: int) -> None:
    """Hazards 15 and 21: the leader carries on with the same lease, each step is done once, everybody serves."""
    servers, bench, gate = tmp_path / "servers", tmp_path / "fleet", tmp_path / "gate"
    servers.mkdir()
    bench.mkdir()
    point = "migrate:doctypes@frappe"
    with (
        sentinel_stack(servers) as stack,
        Fleet(
            bench,
            3,
            redis_port,
            COORDINATE_URL=stack.url,
            STANDIN_PAUSE=f"{point}*1={gate}",
            LOCK_RENEW_TTL_SECS="20",
            LOCK_HEARTBEAT_SECS="2",
        ) as fleet,
    ):
        for container in fleet.containers:
            container.start()
        eventually(lambda: fleet.count("migrate:doctypes") > 0, within=40, what="the migration")
        leader = fleet.leader()
        stack.wait_for_new_primary(stack.kill_primary())
        gate.touch()
        assert [container.wait(90) for container in fleet.containers] == [0, 0, 0], fleet.told()
        assert all(container.served.exists() for container in fleet.containers)
        records = fleet.markers()
        assert {(record["state"], record["attempts"]) for record in records.values()} == {("done", 1)}, records
        tokens = {record["token"] for record in records.values()}
        assert len(tokens) == 1, records
        assert fleet.count("new-site:end") == fleet.count("install-app:end") == 1
        assert "lost" not in leader.text(), leader.text()
