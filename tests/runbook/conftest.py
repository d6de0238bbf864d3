"""Servers that fleets need."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.fleet import EXAMPLE
from tests.standin.conftest import wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run the stand-in for Frappe's own Redis."""
    path = tmp_path_factory.mktemp("redis") / "port"
    with subprocess.Popen([sys.executable, EXAMPLE / "redis_standin.py", "--port-file", path]) as server:
        yield wait_for_port(server, path)
        server.terminate()
        server.wait(10)
