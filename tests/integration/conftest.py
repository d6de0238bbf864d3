"""Stores that the integration tests run on, real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["redis", "file"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a fresh store of each kind."""
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    with redis_server(tmp_path) as server:
        yield server.url
