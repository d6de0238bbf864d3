"""Real database servers of a test's own: MariaDB and PostgreSQL, each in a folder, on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pymysql

from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Pair

HOST = "127.0.0.1"
ROOT_PASSWORD = "root-canary"
LIMIT = 60
_MARIADB_INIT = f"""
CREATE OR REPLACE USER 'root'@'%' IDENTIFIED BY '{ROOT_PASSWORD}';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;
DROP USER IF EXISTS 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1', ''@'localhost';
"""


@dataclass(frozen=True)
class Server:
    """A running server; ``kind`` is a value of DB_TYPE."""

    kind: str
    port: int
    root: str
    tls: dict[str, Any] = field(default_factory=dict)
    """Words for the driver, with which every connection is made."""

    def connect(self, user: str = "", password: str = ROOT_PASSWORD, database: str = "", **options: Any) -> Any:  # noqa: ANN401 - a driver's
        """Return a connection whose statements commit themselves."""
        address = {"host": HOST, "port": self.port, "user": user or self.root, "password": password, **self.tls}
        if self.kind == "mariadb":
            return pymysql.connect(**address, database=database or None, autocommit=True, **options)
        connection = psycopg2.connect(**address, dbname=database or "postgres", **options)
        connection.autocommit = True
        return connection

    def sql(self, statement: str, database: str = "") -> list[Any]:
        """Run a statement as root."""
        with contextlib.closing(self.connect(database=database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def databases(self) -> set[str]:
        """Return the names of all databases."""
        query = "SHOW DATABASES" if self.kind == "mariadb" else "SELECT datname FROM pg_database"
        return {str(row[0]) for row in self.sql(query)}

    def make(self, name: str, password: str) -> None:
        """Make a database and its owner, as an administrator does."""
        if self.kind == "mariadb":
            self.sql(f"CREATE DATABASE `{name}`")
            self.sql(f"CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'")
            self.sql(f"GRANT ALL ON `{name}`.* TO '{name}'@'%'")
        else:
            self.sql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'")
            self.sql(f'CREATE DATABASE "{name}" OWNER "{name}"')


def program(name: str) -> str:
    """Return the path of a server program; without it these tests fail, they are not skipped."""
    places = [str(path.parent) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    path = shutil.which(name, path=":".join([*reversed(places), os.environ["PATH"], "/usr/sbin", "/usr/bin"]))
    assert path, f"{name} is missing: script/test installs it"
    return path


def _run(command: list[str], **options: Any) -> None:  # noqa: ANN401 - those of Popen
    """Run a program; if it fails, show what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def mariadb(folder: Path, *words: str, **tls: Any) -> Iterator[Server]:  # noqa: ANN401 - the driver's
    """Run MariaDB as the user who runs the tests, with further ``words`` of its own; ``tls``: of the driver."""
    (folder / "init.sql").write_text(_MARIADB_INIT)
    user = f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', 'nobody')}"
    data = f"--datadir={folder / 'data'}"
    # Two installations at the same time get in each other's way in a common folder.
    tmp = f"--tmpdir={folder}"
    install = [program("mariadb-install-db"), "--no-defaults", data, user, tmp]
    modest = ["--skip-test-db", "--auth-root-authentication-method=normal", "--innodb-log-file-size=4M"]
    _run([*install, *modest])
    server = Server("mariadb", free_port(), "root", tls)
    command = [program("mariadbd"), "--no-defaults", data, user, tmp, f"--init-file={folder / 'init.sql'}"]
    command += [f"--bind-address={HOST}", f"--port={server.port}", f"--socket={folder / 'socket'}"]
    command += ["--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=4M", "--skip-name-resolve", *words]
    with _running(command, folder, server):
        yield server


@contextlib.contextmanager
def postgres(_: Path, pair: Pair | None = None) -> Iterator[Server]:
    """Run PostgreSQL, which refuses to be run by the superuser: then as nobody. With a certificate: TLS only."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as own:
        # A folder of pytest is closed to everybody but us.
        folder = Path(own)
        options: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        with _postgres_in(folder, options, pair) as server:
            yield server


@contextlib.contextmanager
def _postgres_in(folder: Path, options: dict[str, Any], pair: Pair | None) -> Iterator[Server]:
    (folder / "password").write_text(ROOT_PASSWORD)
    (folder / "password").chmod(0o644)
    data = folder / "data"
    words = ["-D", str(data), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
    command = [program("initdb"), *words, "--no-sync", "--no-instructions", "--locale=C.UTF-8"]
    _run(command, cwd=folder, **options)
    server = Server("postgres", free_port(), "postgres")
    command = [program("postgres"), "-D", str(data), "-h", HOST, "-p", str(server.port), "-k", str(folder), "-F"]
    if pair is not None:
        for name, path in (("server.crt", pair.cert), ("server.key", pair.key)):
            shutil.copyfile(path, data / name)
            (data / name).chmod(0o600)
            os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
        access = data / "pg_hba.conf"
        access.write_text(re.sub(r"^host\b", "hostssl", access.read_text(), flags=re.MULTILINE))
        command += ["-c", "ssl=on"]
    with _running(command, folder, server, **options):
        yield server


@contextlib.contextmanager
def _running(command: list[str], folder: Path, server: Server, **options: Any) -> Iterator[None]:  # noqa: ANN401
    """Run a server until the test is done; it is up when root can log in."""
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, **options) as process:
        try:
            limit = time.monotonic() + LIMIT
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < limit, log.read_text()
                with contextlib.suppress(pymysql.err.Error, psycopg2.Error):
                    server.connect().close()
                    break
                time.sleep(0.05)
            yield
        finally:
            # PostgreSQL waits for its clients after SIGTERM; SIGINT ends it at once.
            process.send_signal(2 if server.kind == "postgres" else 15)
            process.wait(LIMIT)
