"""Servers that fleets need."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.fleet import EXAMPLE, Fleet
from tests.standin.conftest import wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run the stand-in for Frappe's own Redis."""
    path = tmp_path_factory.mktemp("redis") / "port"
    with subprocess.Popen([sys.executable, EXAMPLE / "redis_standin.py", "--port-file", path]) as server:
        yield wait_for_port(server, path)
        server.terminate()
        server.wait(10)


@pytest.fixture
def fleet(tmp_path: Path, redis_port: int) -> Iterator[Fleet]:
    """Return what replicas share that take their passwords from files which nobody writes, as those of the example."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    with Fleet(tmp_path, 0, redis_port) as fleet:
        for name in ("DB_PASS", "DB_ROOT_PASS", "ADMIN_PASS"):
            path = secrets / name.lower()
            path.write_text(fleet.environ.pop(name))
            path.chmod(0o444)
            fleet.environ[f"{name}_FILE"] = str(path)
        yield fleet
