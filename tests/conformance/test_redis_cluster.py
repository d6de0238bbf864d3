"""The contracts of port and core, on a Redis Cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.backends.redis import RedisBackend
from coordinate.testing import (
    CoordinatorContract,
    OpenBackend,
    StoreContract,
    opener,
)
from tests.conformance.test_coordinators import members
from tests.stacks.cluster import redis_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.coordinator import Coordinator
    from tests.stacks.cluster import Cluster


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One stack for all tests."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as stack:
        yield stack


@pytest.fixture
def url(stack: Cluster) -> str:
    """Return the URL of the emptied store."""
    stack.flush()
    return stack.url()


class TestPort(StoreContract):
    """All port contracts."""

    @pytest.fixture
    def open_backend(self, url: str) -> Iterator[OpenBackend]:
        """Clients of an empty store."""
        with opener(RedisBackend, url) as open_backend:
            yield open_backend


class TestCoordinators(CoordinatorContract):
    """Leases, markers and steps as people use them."""

    @pytest.fixture
    def open_coordinator(self, url: str) -> Iterator[Callable[[], Coordinator]]:
        """Members of one fresh fleet."""
        yield from members(url, None, self.ttl)
