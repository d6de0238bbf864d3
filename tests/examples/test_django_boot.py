"""The Django example: three replicas, one migration, whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate.testing import eventually
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "django_boot"
LIMIT = 120.0
SLOW = """
from pathlib import Path
from time import sleep

from django.db import migrations


def wait(apps, schema_editor):
    with Path("{begun}").open("a") as log:
        log.write("begun\\n")
    while not Path("{gate}").exists():
        sleep(0.02)
    if Path("{gate}").read_text() == "fail":
        raise RuntimeError("no such column")


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial")]
    operations = [migrations.RunPython(wait)]
"""


class Project:
    """A copy of the example with one more migration, which waits at a gate."""

    def __init__(self, folder: Path, url: str) -> None:
        self.code = folder / "code"
        self.gate = folder / "gate"
        self.begun = folder / "begun"
        self.database = folder / "shop.db"
        shutil.copytree(EXAMPLE, self.code)
        slow = SLOW.format(begun=self.begun, gate=self.gate)
        (self.code / "orders" / "migrations" / "0002_slow.py").write_text(slow)
        self.environ = {
            **os.environ,
            "COORDINATE_URL": url,
            "COORDINATE_TTL": "4",
            "REVISION": "v1",
            "DATABASE": str(self.database),
        }

    def start(self) -> subprocess.Popen[str]:
        """Start a replica whose command says that it serves."""
        return subprocess.Popen(
            [sys.executable, str(self.code / "boot.py"), "echo", "serving"],
            cwd=self.code,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def applied(self) -> list[str]:
        """Return the migrations that are recorded."""
        connection = sqlite3.connect(self.database)
        try:
            return [row[0] for row in connection.execute("SELECT name FROM django_migrations ORDER BY id")]
        finally:
            connection.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Return the project, on a Redis of its own."""
    with redis_server(tmp_path) as server:
        yield Project(tmp_path, server.url)


def leader_of(replicas: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Return which of them runs Django's command."""
    lines = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout  # noqa: S607
    rows = [line.split(None, 2) for line in lines.splitlines()]
    parents = {int(row[0]): int(row[1]) for row in rows}
    pids = {replica.pid: replica for replica in replicas}
    for row in rows:
        pid = int(row[0]) if "manage.py migrate" in row[2] else 0
        while pid and pid not in pids:
            pid = parents.get(pid, 0)
        if pid:
            return pids[pid]
    raise AssertionError("nobody migrates")  # noqa: EM101, TRY003


def test_one_migrates_all_serve_whoever_dies(project: Project) -> None:
    """The leader is killed in the middle of a migration; the next one applies it, once."""
    replicas = [project.start() for _ in range(3)]
    eventually(project.begun.exists, within=LIMIT, what="the slow migration")
    leader = leader_of(replicas)
    leader.kill()
    eventually(lambda: project.begun.read_text().count("begun") == 2, within=LIMIT, what="the second attempt")
    project.gate.touch()
    told = [replica.communicate(timeout=LIMIT)[0] for replica in replicas]
    assert sorted(replica.returncode for replica in replicas) == [-signal.SIGKILL, 0, 0], told
    assert sum(text.endswith("serving\n") for text in told) == 2
    assert project.applied() == ["0001_initial", "0002_slow"]
    late = project.start()
    assert late.communicate(timeout=LIMIT)[0] == "serving\n"


def test_a_migration_that_fails_ends_all_with_its_last_lines(project: Project) -> None:
    """Three attempts over the fleet, then everybody knows why."""
    project.gate.write_text("fail")
    replicas = [project.start() for _ in range(3)]
    told = [replica.communicate(timeout=LIMIT)[0] for replica in replicas]
    assert [replica.returncode for replica in replicas] == [76, 76, 76], told
    assert all("no such column" in text for text in told)
    assert project.begun.read_text().count("begun") == 3
