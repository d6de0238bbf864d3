"""A fleet of bootstraps on benches that share one sites volume and one stand-in database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from coordinate import connect
from tests.standin.conftest import wait_for_port
from tests.standin.fleet import EXAMPLE, Bench, make_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 300
DONE = {"config", "site", "migrate", "apps", "assets", "ready"}


@dataclass
class Fleet:
    """Replicas of one image; each has a bench of its own, all share volume, database and lease folder."""

    root: Path
    environ: dict[str, str]
    canaries: dict[str, str]
    apps: list[str] = field(default_factory=lambda: ["demo_app"])
    patches: dict[str, list[str]] = field(default_factory=dict)
    benches: list[Path] = field(default_factory=list)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def sites(self) -> Path:
        """Return the shared sites folder."""
        return self.root / "sites"

    @property
    def bench(self) -> Bench:
        """Return a view into the first replica's bench and its database."""
        settings = {"STANDIN_DB_DIR": self.environ["STANDIN_DB_DIR"], "STANDIN_SCALE": "0"}
        return Bench(self.benches[0], settings, root={"user": "root", "password": self.canaries["DB_ROOT_PASS"]})

    def add(self) -> None:
        """Make the bench of one more replica."""
        path = self.root / f"bench-{len(self.benches)}"
        made = make_bench.make_bench(path, self.apps, apps_txt=False, sites=self.sites, patches=self.patches)
        self.benches.append(made)

    def start(self, *command: str, program: str = "", **environ: str) -> subprocess.Popen[str]:
        """Start one more replica; ``program``: Python that becomes the bootstrap."""
        number = len(self.running)
        if number >= len(self.benches):
            self.add()
        child = subprocess.Popen(
            [sys.executable, *(["-c", program] if program else ["-m", "frappe_bootstrap.cli"]), *command],
            env={
                **self.environ,
                "BENCH_DIR": str(self.benches[number]),
                "BOOTSTRAP_STATE_DIR": str(self.benches[number] / "state"),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(child)
        return child

    def run(self, *command: str, **environ: str) -> tuple[int, str, str]:
        """Run one replica to its end: exit code, stdout, stderr."""
        child = self.start(*command, **environ)
        out, err = child.communicate(timeout=LIMIT)
        return child.returncode, out, err

    def commands(self) -> Counter[str]:
        """Return how often each bench command has begun."""
        path = self.root / "bench.log"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return Counter(line["command"] for line in lines if line["event"] == "begin")

    def record(self, step: str, revision: str = "registry/image:1") -> dict[str, Any]:
        """Return what is recorded about a step."""
        with connect(f"file://{self.sites}/.frappe_bootstrap") as coordinator:
            record = coordinator.markers("frappe/s1").view().find(step, revision)
        return msgspec.to_builtins(record) if record is not None else {}

    def reset(self, step: str, revision: str = "registry/image:1") -> None:
        """Clear a step's record, as an operator does."""
        with connect(f"file://{self.sites}/.frappe_bootstrap") as coordinator:
            assert coordinator.markers("frappe/s1").reset(step, revision)

    def fail_looks(self, *numbers: int) -> Path:
        """Let those runs of the next replica's bench Python fail; the file that is returned counts them."""
        number = len(self.running)
        self.benches.append(
            make_bench.make_bench(self.root / f"bench-{number}", ["demo_app"], apps_txt=False, sites=self.sites)
        )
        python, count = self.benches[number] / "env/bin/python", self.root / f"looks-{number}"
        python.rename(python.with_name("real-python"))
        count.write_text("0")
        python.write_text(
            f"""#!/bin/sh
number=$(($(cat {count}) + 1))
echo $number > {count}
case " {" ".join(map(str, numbers))} " in *" $number "*) echo no look today >&2; exit 1;; esac
exec {python.with_name("real-python")} "$@"
"""
        )
        python.chmod(0o755)
        return count

    def close(self) -> None:
        """End what a failed test left."""
        for child in self.running:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.communicate()


@contextlib.contextmanager
def tiny_redis(folder: Path) -> Iterator[int]:
    """Run the tiny Redis for redis_cache and redis_queue; yield its port."""
    path = folder / "port"
    with subprocess.Popen([sys.executable, EXAMPLE / "redis_standin.py", "--port-file", path]) as server:
        try:
            yield wait_for_port(server, path)
        finally:
            server.terminate()
        assert server.wait(LIMIT) == 0


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of the tiny Redis."""
    with tiny_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


def new_fleet(folder: Path, redis_port: int) -> Fleet:
    """Return a fleet without replicas, on an empty volume and an empty database server."""
    canaries = {name: f"canary-{secrets.token_hex(6)}" for name in ("DB_ROOT_PASS", "ADMIN_PASS", "DB_PASS")}
    database = make_bench.make_database(folder / "server", canaries["DB_ROOT_PASS"])
    environ: dict[str, str] = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **canaries,
        "SITE": "s1",
        "IMAGE_REV": "registry/image:1",
        "APPS": "demo_app",
        "DB_HOST": "127.0.0.1",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_CACHE_PORT": str(redis_port),
        "REDIS_QUEUE_PORT": str(redis_port),
        "COORDINATE_URL": f"file://{folder}/lease",
        "WAIT_TIMEOUT": "120",
        "BOOT_TIMEOUT": "240",
        "MAINTENANCE_WAIT_SECS": "0",
        "STANDIN_DB_DIR": str(database),
        "STANDIN_DIR": str(folder / "fleet"),
        "STANDIN_LOG": str(folder / "bench.log"),
        "STANDIN_SCALE": "0",
    }
    return Fleet(folder, environ, canaries)


@pytest.fixture
def fleet(tmp_path: Path, redis_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Return an empty fleet; what it leaves running is ended."""
    fleet = new_fleet(tmp_path, redis_port)
    monkeypatch.setenv("STANDIN_DB_DIR", fleet.environ["STANDIN_DB_DIR"])
    yield fleet
    fleet.close()


@pytest.fixture
def healthy() -> dict[str, Any]:
    """Return what the shim answers about a finished site."""
    login = {"ok": True, "tables": 227, "defaults": True, "apps": ["frappe", "demo_app"], "administrator": True}
    return {"folder": True, "common": "ok", "config": "ok", "config_error": "", "db_name": "d", "login": login}


@pytest.fixture
def plain_bench(tmp_path: Path) -> Path:
    """Return a bench of nothing but folders."""
    bench = tmp_path / "bench"
    for part in ("apps/frappe/frappe", "apps/erp/erp/doctype/note", "sites", "logs", "config/pids", "env/bin"):
        (bench / part).mkdir(parents=True)
    for app in ("frappe", "erp"):
        (bench / "apps" / app / app / "hooks.py").touch()
        (bench / "apps" / app / app / "__init__.py").write_text('__version__ = "1"\n')
    (bench / "env/bin/python").symlink_to(sys.executable)
    return bench


@pytest.fixture
def environ(plain_bench: Path) -> dict[str, str]:
    """Return the least environment that is accepted."""
    ports = {f"REDIS_{name}_PORT": str(port) for name, port in (("CACHE", 6379), ("QUEUE", 6380), ("SOCKETIO", 6381))}
    names = {"SITE": "erp.example.com", "IMAGE_REV": "v1", "DB_HOST": "db", "REDIS_HOST": "redis"}
    return {**names, **ports, "BENCH_DIR": str(plain_bench)}


def done_steps(stderr: str) -> list[str]:
    """Return the steps that a replica's log reports as done."""
    return re.findall(r" step=(\w+) token=\d+ seconds=[\d.]+ done$", stderr, re.MULTILINE)
