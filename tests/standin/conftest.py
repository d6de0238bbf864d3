"""Benches for the tests: an empty one, one with a finished site, and the cache server they share."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.standin.fleet import EXAMPLE, LIMIT, ROOT_PASSWORD, Bench, Gate, make_bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "127.0.0.1"


def wait_for_port(process: subprocess.Popen[bytes], path: Path) -> int:
    """Wait for the port file of a server that was just started."""
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)
    return int(path.read_text())


@pytest.fixture(scope="session")
def cache_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run the tiny Redis for the whole session; keys carry a site's database name, so nothing mixes."""
    path = tmp_path_factory.mktemp("cache") / "port"
    with subprocess.Popen([sys.executable, EXAMPLE / "redis_standin.py", "--port-file", path]) as server:
        yield wait_for_port(server, path)
        server.terminate()
        assert server.wait(LIMIT) == 0


@pytest.fixture
def bench(tmp_path: Path, cache_port: int) -> Bench:
    """Return a bench without a site, with a database server of its own."""
    config = {"redis_cache": f"redis://{HOST}:{cache_port}", "db_host": HOST, "db_port": 3306}
    path = make_bench.make_bench(tmp_path / "bench", ["demo_app", "other_app"], common_config=config)
    database = make_bench.make_database(tmp_path / "server", ROOT_PASSWORD)
    environ = {"STANDIN_DB_DIR": str(database), "STANDIN_SCALE": "0", "STANDIN_DIR": str(tmp_path / "fleet")}
    return Bench(path, environ)


@pytest.fixture(autouse=True)
def _same_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stand-in driver in this process see the bench's server."""
    if "bench" in request.fixturenames:
        environ = request.getfixturevalue("bench").environ
        monkeypatch.setenv("STANDIN_DB_DIR", environ["STANDIN_DB_DIR"])


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one finished site with frappe only; tests get copies."""
    folder = tmp_path_factory.mktemp("template")
    config = {"redis_cache": f"redis://{HOST}:1", "db_host": HOST, "db_port": 3306}
    path = make_bench.make_bench(folder / "bench", ["demo_app", "other_app"], common_config=config)
    database = make_bench.make_database(folder / "server", ROOT_PASSWORD)
    done = Bench(path, {"STANDIN_DB_DIR": str(database), "STANDIN_SCALE": "0"}).new_site()
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def site(bench: Bench, _template: Path, tmp_path: Path) -> Bench:
    """Return a bench whose site ``s1`` has frappe and was never migrated."""
    shutil.copytree(_template / "bench" / "sites" / "s1", bench.sites / "s1")
    shutil.copytree(_template / "server", tmp_path / "server", dirs_exist_ok=True)
    old = bench.config()["db_name"]
    new = f"_{abs(hash(str(tmp_path))):016x}"
    users = tmp_path / "server" / "users.json"
    users.write_text(users.read_text().replace(old, new))
    (tmp_path / "server" / f"{old}.sqlite").rename(tmp_path / "server" / f"{new}.sqlite")
    path = bench.sites / "s1" / "site_config.json"
    path.write_text(json.dumps(bench.config() | {"db_name": new}))
    return bench


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[str], Gate]:
    """Return a maker of gates."""

    def make(point: str) -> Gate:
        folder = tmp_path / f"gate-{len(list(tmp_path.glob('gate-*')))}"
        folder.mkdir()
        return Gate(folder, point)

    return make
