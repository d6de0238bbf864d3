"""A real Redis server is held to the port's contract, by TCP and by unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.backends.redis import RedisBackend
from coordinate.testing import OpenBackend, StoreContract, UnavailablePortContract, opener
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate.backend import Backend
    from tests.servers import RedisServer


@pytest.fixture(scope="module", params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests, by each way to it."""
    with redis_server(tmp_path_factory.mktemp("redis"), tcp=request.param == "tcp") as server:
        yield server


class TestRedis(StoreContract):
    """All port contracts, on a server that is emptied for each test."""

    @pytest.fixture
    def open_backend(self, server: RedisServer) -> Iterator[OpenBackend]:
        """Clients of an empty server."""
        with server.client() as client:
            client.flushall()
        with opener(RedisBackend, server.url) as open_backend:
            yield open_backend


class TestUnreachable(UnavailablePortContract):
    """Nobody listens there: our errors, no wrong fact, no password."""

    @pytest.fixture
    def unreachable(self) -> Iterator[Backend]:
        """One client that nothing answers."""
        with opener(RedisBackend, "redis://:canary@127.0.0.1:1/0", timeout=2.0) as open_backend:
            yield open_backend()
