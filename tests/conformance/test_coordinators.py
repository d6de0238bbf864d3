"""The core on real stores, and with leases and markers in different ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.testing import CoordinatorContract
from tests.servers import redis_server
from tests.stacks.etcd import etcd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coordinate.coordinator import Coordinator


def members(url: str, markers_url: str | None, ttl: float) -> Iterator[Callable[[], Coordinator]]:
    """Yield an opener of coordinators; close them in the end."""
    opened: list[Coordinator] = []

    def open_coordinator() -> Coordinator:
        opened.append(connect(url, markers_url=markers_url, ttl=ttl))
        return opened[-1]

    yield open_coordinator
    for coordinator in opened:
        coordinator.close()


class TestFile(CoordinatorContract):
    """Leases and markers on one volume."""

    @pytest.fixture
    def open_coordinator(self, tmp_path: Path) -> Iterator[Callable[[], Coordinator]]:
        """Members of one fresh fleet."""
        yield from members(f"file://{tmp_path}/store", None, self.ttl)


class TestRedis(CoordinatorContract):
    """Leases and markers on one server."""

    @pytest.fixture
    def open_coordinator(self, tmp_path: Path) -> Iterator[Callable[[], Coordinator]]:
        """Members of one fresh fleet."""
        with redis_server(tmp_path) as server:
            yield from members(server.url, None, self.ttl)


class TestEtcd(CoordinatorContract):
    """Leases and markers on one member."""

    @pytest.fixture
    def open_coordinator(self, tmp_path: Path) -> Iterator[Callable[[], Coordinator]]:
        """Members of one fresh fleet."""
        with etcd(tmp_path) as ensemble:
            yield from members(ensemble.url, None, self.ttl)


class TestRedisLeasesFileMarkers(CoordinatorContract):
    """The arrangement of Frappe: the lease on Redis, the markers on the volume that they describe."""

    @pytest.fixture
    def open_coordinator(self, tmp_path: Path) -> Iterator[Callable[[], Coordinator]]:
        """Members of one fresh fleet."""
        with redis_server(tmp_path) as server:
            yield from members(server.url, f"file://{tmp_path}/markers", self.ttl)
