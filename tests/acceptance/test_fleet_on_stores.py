"""The main job on each replicated store: its leading member dies in the middle of a migration.

Nothing but ``COORDINATE_URL`` differs. A store is added by a line in STORES.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from coordinate.testing import eventually
from tests.acceptance.fleet import Fleet
from tests.stacks.etcd import etcd

# The plugin's tests own its ensemble; under pytest's importlib mode their folder is not on the path.
sys.path.append(str(Path(__file__).parents[2] / "plugins" / "zookeeper" / "tests" / "support"))

from zookeeper_ensemble import ensemble_of_three

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

STEPS = {"config", "site", "migrate", "apps", "assets", "ready"}
BOOTED_WITHIN = 240.0
"""Seconds: a bound that only a hang reaches."""


class Store(NamedTuple):
    """A running ensemble.

    Args:
        url: for ``COORDINATE_URL``.
        kill_leader: ends the member that leads, as a crash would.
    """

    url: str
    kill_leader: Callable[[], object]


@contextlib.contextmanager
def on_etcd(folder: Path) -> Iterator[Store]:
    """Three members of etcd."""
    with etcd(folder, 3) as ensemble:
        yield Store(f"{ensemble.url}/frappe", lambda: ensemble.leader().kill())


@contextlib.contextmanager
def on_zookeeper(folder: Path) -> Iterator[Store]:
    """Three servers of ZooKeeper."""
    with ensemble_of_three(folder) as ensemble:
        yield Store(ensemble.url("/frappe"), lambda: ensemble.leader().kill())


STORES: dict[str, Callable[[Path], AbstractContextManager[Store]]] = {"etcd": on_etcd, "zookeeper": on_zookeeper}


@pytest.mark.parametrize("store", STORES)
def test_a_leader_of_the_store_dies_in_the_middle_of_migrate(tmp_path: Path, redis_port: int, store: str) -> None:
    """The bootstrap that leads keeps its lease: each step is done once, under one token, and everybody serves."""
    servers, bench, gate = tmp_path / "servers", tmp_path / "fleet", tmp_path / "gate"
    servers.mkdir()
    bench.mkdir()
    settings = {"STANDIN_PAUSE": f"migrate:doctypes@frappe*1={gate}", "LOCK_RENEW_TTL_SECS": "12"}
    settings |= {"LOCK_HEARTBEAT_SECS": "1", "BOOT_TIMEOUT": str(BOOTED_WITHIN)}
    with (
        STORES[store](servers) as running,
        Fleet(bench, 3, redis_port, COORDINATE_URL=running.url, **settings) as fleet,
    ):
        for container in fleet.containers:
            container.start()
        eventually(lambda: fleet.count("migrate:doctypes") > 0, within=BOOTED_WITHIN, what="the migration")
        leader = fleet.leader()
        running.kill_leader()
        gate.touch()
        codes = [container.wait(BOOTED_WITHIN) for container in fleet.containers]
        assert codes == [0, 0, 0], fleet.told()
        assert all(container.served.exists() for container in fleet.containers)
        records = fleet.markers()
        assert set(records) == STEPS
        assert {(record["state"], record["attempts"]) for record in records.values()} == {("done", 1)}, records
        assert len({record["token"] for record in records.values()}) == 1, records
        assert [fleet.count(f"{point}:end") for point in ("new-site", "install-app")] == [1, 1]
        assert "lost" not in leader.text(), leader.text()
