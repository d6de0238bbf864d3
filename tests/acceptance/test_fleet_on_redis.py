"""Fleets whose lease is on a replicated store, of which the primary dies in the middle of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.testing import eventually
from tests.acceptance.fleet import SITE, Fleet
from tests.stacks.cluster import redis_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stacks.cluster import Cluster

STEPS = {"config", "site", "migrate", "apps", "assets", "ready"}
TTL = "9"
BOOTED_WITHIN = 240.0
"""Seconds: a bound that only a hang reaches."""


def test_a_primary_of_a_cluster_dies_in_the_middle_of_migrate(tmp_path: Path, redis_port: int) -> None:
    """Its replica takes over, the leader keeps its lease: each step is completed once, everybody serves."""
    gate = tmp_path / "gate"
    place = tmp_path / "cluster"
    place.mkdir()
    with redis_cluster(place) as cluster:
        store = {
            "COORDINATE_URL": cluster.url(),
            "LOCK_RENEW_TTL_SECS": TTL,
            "LOCK_HEARTBEAT_SECS": "1",
            "WAIT_TIMEOUT": "120",
            "BOOT_TIMEOUT": str(BOOTED_WITHIN),
        }
        pause = f"migrate:doctypes@frappe*1={gate}"
        with Fleet(tmp_path, 3, redis_port, STANDIN_PAUSE=pause, **store) as fleet:
            for container in fleet.containers:
                container.start()
            eventually(lambda: fleet.count("migrate:doctypes") > 0, within=BOOTED_WITHIN, what="the migration")
            (key,) = leases(cluster)
            cluster.fail_over(key)
            gate.touch()
            codes = [container.wait(BOOTED_WITHIN) for container in fleet.containers]
            assert codes == [0, 0, 0], fleet.told()
            assert all(container.served.exists() for container in fleet.containers)
            records = fleet.markers()
            assert set(records) == STEPS
            assert {(record["state"], record["attempts"]) for record in records.values()} == {("done", 1)}
            assert [fleet.count(f"{point}:end") for point in ("new-site", "install-app")] == [1, 1]
            assert SITE in key


def leases(cluster: Cluster) -> list[str]:
    """Return the keys of the leases that are held."""
    found: list[str] = []
    for port in {each.port for each in cluster.slots()}:
        with cluster.server(port).client() as client:
            found += [key.decode() for key in client.scan_iter("*:lease")]
    return found
