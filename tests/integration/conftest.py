"""Stores that the integration tests run on, real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import opened, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from coordinate.backends.redis import RedisBackend
    from tests.servers import RedisServer


@pytest.fixture(params=["redis", "file"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a fresh store of each kind."""
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    with redis_server(tmp_path) as server:
        yield server.url


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests of a module, which leave it running."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def admin(shared: RedisServer) -> Iterator[redis.Redis]:
    """Return a plain client of the emptied shared server."""
    with shared.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def backend(shared: RedisServer, admin: redis.Redis) -> Iterator[RedisBackend]:
    """Return a backend on the emptied shared server."""
    del admin
    backend = opened(shared.url)
    yield backend
    backend.close()
