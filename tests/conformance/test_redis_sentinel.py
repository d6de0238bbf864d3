"""The contracts of port and core, on a primary that Sentinels name."""

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
from tests.stacks.sentinel import sentinel_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.coordinator import Coordinator
    from tests.stacks.sentinel import SentinelStack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelStack]:
    """One stack for all tests."""
    with sentinel_stack(tmp_path_factory.mktemp("sentinel")) as stack:
        yield stack


@pytest.fixture
def url(stack: SentinelStack) -> str:
    """Return the URL of the emptied store."""
    with stack.primary.client() as client:
        client.flushall()
    return stack.url


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
