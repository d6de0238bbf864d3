"""Benches under test: run and stop their commands, look into their database."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "standin_bench"
ROOT_PASSWORD = "root-canary"
LIMIT = 120
"""Seconds within which a busy machine runs any command."""


def load(name: str, path: Path) -> ModuleType:
    """Import a module or package of the example under a name of our own, beside the real PyMySQL."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


make_bench = load("standin_make_bench", EXAMPLE / "make_bench.py")
standin_pymysql = load("standin_pymysql", EXAMPLE / "pymysql_standin" / "pymysql" / "__init__.py")


@dataclass
class Bench:
    """One bench, the environment of its commands, and the driver that reaches its database."""

    path: Path
    environ: dict[str, str]
    driver: Any = standin_pymysql
    root: dict[str, Any] = field(default_factory=lambda: {"user": "root", "password": ROOT_PASSWORD})

    @property
    def sites(self) -> Path:
        """Return the sites folder."""
        return self.path / "sites"

    def _options(self, environ: dict[str, str]) -> dict[str, Any]:
        merged = {"PATH": os.environ["PATH"], **self.environ, **environ}
        return {"cwd": self.sites, "env": merged, "text": True, "start_new_session": True}

    def command(self, *words: object) -> list[str]:
        """Return the command line that the launcher would exec."""
        python = str(self.path / "env" / "bin" / "python")
        return [python, "-m", "frappe.utils.bench_helper", "frappe", *map(str, words)]

    def run(self, *words: object, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, without a terminal."""
        options = self._options(environ)
        pipe = subprocess.PIPE
        return subprocess.run(
            self.command(*words), input=stdin, stdout=pipe, stderr=pipe, timeout=LIMIT, check=False, **options
        )

    def ok(self, *words: object, **environ: str) -> str:
        """Run one command that must succeed and return its stdout."""
        done = self.run(*words, **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def started(self, *words: object, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """Run one command beside the test; whatever is left of its group at the end is killed."""
        with subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._options(environ),
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def new_site(self, *words: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """Create the site ``s1``."""
        secrets = ("--db-root-password", self.root["password"], "--admin-password", "admin-canary")
        return self.run("new-site", "s1", *secrets, *words, **environ)

    def config(self, name: str = "s1/site_config.json") -> dict[str, Any]:
        """Return a config file."""
        loaded: dict[str, Any] = json.loads((self.sites / name).read_text())
        return loaded

    def connect(self, **options: Any) -> Any:  # noqa: ANN401 - of either driver
        """Connect to the database server: as root, or with other arguments."""
        common = self.config("common_site_config.json")
        address = {"host": common["db_host"], "port": common["db_port"]}
        return self.driver.connect(**{**address, **self.root, "autocommit": True, **options})

    def connect_site(self, **options: Any) -> Any:  # noqa: ANN401 - of either driver
        """Connect as the site's user."""
        config = self.config()
        login = {"user": config["db_name"], "password": config["db_password"], "database": config["db_name"]}
        return self.connect(**{**login, **options})

    def sql(self, query: str, *values: object) -> list[Any]:
        """Run one statement on the site's database as its user."""
        with contextlib.closing(self.connect_site()) as connection, connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def as_root(self, query: str) -> list[Any]:
        """Run one statement as root."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def installed(self) -> list[str] | None:
        """Return the truth about installed apps."""
        rows = self.sql(
            "SELECT defvalue FROM tabDefaultValue WHERE parent = %s AND defkey = %s",
            *("__global", "installed_apps"),
        )
        return json.loads(rows[0][0]) if rows else None

    def tables(self) -> int:
        """Return the number of tables of the site."""
        query = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = %s"
        return int(self.sql(query, self.config()["db_name"])[0][0])

    def runs_of(self, hook: str) -> int:
        """Return how often a hook or a patch took effect."""
        return int(self.sql("SELECT COUNT(*) FROM `tabHook Run` WHERE hook = %s", hook)[0][0])


class Gate:
    """Holds a command at a point: the test waits until it is there, then opens or kills."""

    def __init__(self, folder: Path, point: str) -> None:
        """Make the pipe that the command writes to on arrival."""
        self._arrival = folder / "arrival"
        self._opened = folder / "opened"
        os.mkfifo(self._arrival)
        script = folder / "arrive.sh"
        script.write_text(f"#!/bin/sh\necho here > {self._arrival}\n")
        script.chmod(0o755)
        self.environ = {"STANDIN_DIE_CALL": f"{point}={script}", "STANDIN_PAUSE": f"{point}={self._opened}"}

    def wait(self) -> None:
        """Block until the command has arrived."""
        assert self._arrival.read_text() == "here\n"

    def open(self) -> None:
        """Let it go on."""
        self._opened.touch()
