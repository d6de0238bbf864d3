"""The shim's jobs on real servers: MariaDB and PostgreSQL, each run once for this module."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from coordinate import connect, steps
from frappe_bootstrap import record, settings
from frappe_bootstrap.bench import SHIM, Bench
from frappe_bootstrap.inspection import Answer, Kind, State, classify, unreachable
from frappe_bootstrap.waiting import Stop
from tests.stacks.databases import HOST, ROOT_PASSWORD, Server, mariadb, postgres, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "site-canary"


@pytest.fixture(scope="module", params=[mariadb, postgres], ids=["mariadb", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one of the servers."""
    with request.param(tmp_path_factory.mktemp("database")) as running:
        yield running


class Site:
    """A site s1 with a database of its own on a server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.name = f"site_{os.urandom(4).hex()}"
        self.password = PASSWORD
        (folder / "s1").mkdir()
        self.config = folder / "s1" / "site_config.json"
        self.configure()

    def configure(self, **changes: object) -> None:
        """Write the site's config file."""
        self.config.write_text(json.dumps({"db_name": self.name, "db_password": PASSWORD, **changes}))

    def finish(self) -> None:
        """Put into the database what tells a finished site."""
        quote = "`" if self.server.kind == "mariadb" else '"'
        defaults = f"{quote}tabDefaultValue{quote}"
        for statement in (
            f"CREATE TABLE {defaults} (parent VARCHAR(40), defkey VARCHAR(40), defvalue TEXT)",
            f"INSERT INTO {defaults} VALUES ('__global', 'installed_apps', '[\"frappe\"]')",  # noqa: S608 - fixed
            f"CREATE TABLE {quote}tabUser{quote} (name VARCHAR(40))",
            f"INSERT INTO {quote}tabUser{quote} VALUES ('Administrator')",  # noqa: S608 - as above
        ):
            self.sql(statement)

    def sql(self, statement: str) -> list[Any]:
        """Run a statement as the site's user."""
        connection = self.server.connect(self.name, PASSWORD, self.name)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            found = list(cursor.fetchall()) if cursor.description else []
        if self.server.kind == "postgres":
            connection.close()
        return found

    def ask(self, job: str, **words: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # noqa: ANN401 - JSON
        """Run a job of the shim; return the sessions that it announced, and its answer."""
        address = {"db_type": self.server.kind, "db_host": HOST, "db_port": self.server.port}
        request = {"job": job, "site": "s1", "db_name": self.name, "server": address, **words}
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(json.dumps(request).encode() + b"\n" + b"+" * 9)
            command = [sys.executable, str(SHIM), str(theirs.fileno())]
            subprocess.run(command, cwd=self.folder, pass_fds=[theirs.fileno()], check=True, timeout=60)
            lines = [json.loads(line) for line in ours.recv(65536).splitlines()]
        return [line for line in lines if "session" in line], lines[-1]

    def state(self, **words: Any) -> State:  # noqa: ANN401 - JSON
        """Return the site's state."""
        return classify(self.answer(**words))

    def answer(self, **words: Any) -> Answer:  # noqa: ANN401 - JSON
        """Return what inspect says."""
        return record.msgspec.convert(self.ask("inspect", **words)[1], Answer)

    def write(self, name: str, value: object, token: int, **words: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Write a row of the record."""
        return self.ask("record", name=name, value=value, token=token, **words)[1]


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Site:
    """Return a finished site."""
    site = Site(tmp_path, server)
    server.make(site.name, PASSWORD)
    site.finish()
    return site


CREATION = {"nonce": "n1", "site": "s1", "database": "d", "token": 3, "at": 1.0}


def test_a_record_is_written_read_removed_and_fenced(site: Site) -> None:
    """Hazard 6: the truth is in the database; a lower token changes nothing, also after the row was removed."""
    assert site.state().record == record.SiteRecord()
    sessions, answer = site.ask("record", name="migrating", value={"revision": "2", "token": 5}, token=5)
    assert (len(sessions), answer) == (1, {"ok": True, "stale": 0})
    assert site.write("creation", CREATION, 5)["stale"] == 0
    state = site.state()
    assert state.kind is Kind.HEALTHY
    assert state.record == record.SiteRecord(
        None, record.Migrating("2", token=5), record.Creation("n1", "s1", "d", 3, 1.0)
    )
    assert site.write("migrating", None, 6)["stale"] == 0
    assert site.write("migrating", {"revision": "1"}, 5)["stale"] == 6
    assert site.state().record.migrating is None
    assert site.write("migrating", {"revision": "1"}, 5, force=True)["stale"] == 0
    assert site.state().record.migrating == record.Migrating("1")


def test_a_damaged_record_proves_nothing(site: Site) -> None:
    """People write into tables, too."""
    site.write("creation", CREATION, 1)
    site.sql("UPDATE __frappe_bootstrap SET value = '{'")
    assert site.state().record == record.SiteRecord()
    assert site.state().kind is Kind.HEALTHY


def test_what_the_server_says_is_judged_the_same_on_both(site: Site) -> None:
    """Points 1, 3, 4: wrong password, no such user, no such database, no server; the truth is read by SQL."""
    assert site.state().apps == ("frappe",)
    site.configure(db_password="wrong")
    assert site.state().kind is Kind.UNREACHABLE
    assert "bound to another host" in site.state().reason
    assert unreachable(site.answer()) is None
    site.configure(db_name="nobodys")
    assert site.state().kind is Kind.UNREACHABLE
    root = {"db_user": site.server.root, "db_password": ROOT_PASSWORD}
    site.configure(db_name="nobodys", **root)
    assert site.state() == State(Kind.HALF_MADE, "its database nobodys does not exist", database_name="nobodys")
    site.configure(db_port=1)
    assert unreachable(site.answer())


def test_a_rotated_password_is_tried_after_that_of_the_config(site: Site) -> None:
    """Point 21: the config's first, then the environment's; only one that is let in counts."""
    site.configure(db_password="before")
    state = site.state(password=PASSWORD)
    assert (state.kind, state.rotated) == (Kind.HEALTHY, True)
    assert site.write("creation", CREATION, 1, password=PASSWORD)["ok"]
    assert site.state(password="neither").kind is Kind.UNREACHABLE
    site.configure()
    assert not site.state(password="neither").rotated


def root(site: Site) -> dict[str, Any]:
    """Return root's login as the shim gets it."""
    return {"root": [site.server.root, ROOT_PASSWORD], "timeout": 10}


def test_an_earlier_session_is_ended_and_no_other_one(site: Site) -> None:
    """Hazard 15 in the database, point 2: by number and client, with the site's login alone; the rest goes on."""
    sleep = "SELECT SLEEP(60)" if site.server.kind == "mariadb" else "SELECT pg_sleep(60)"
    ours, tenants = (site.server.connect(site.name, PASSWORD, site.name) for _ in range(2))
    who = "SELECT pg_backend_pid()" if site.server.kind == "postgres" else "SELECT CONNECTION_ID()"
    numbers = []
    for connection in (ours, tenants):
        with connection.cursor() as cursor:
            cursor.execute(who)
            numbers.append(cursor.fetchone()[0])
    child = os.fork()
    if child == 0:
        try:
            ours.cursor().execute(sleep)
        finally:
            os._exit(0)
    listed = dict(listing(site))
    wrong = [(numbers[1], "elsewhere:1")]
    begun = time.monotonic()
    _, answer = site.ask("settle", sessions=[(numbers[0], listed[numbers[0]]), *wrong], timeout=20)
    assert answer == {"ok": True, "error": "", "errno": 0}
    os.waitpid(child, 0)
    assert time.monotonic() - begun < 20
    assert {number for number, _ in listing(site)} & set(numbers) == {numbers[1]}
    tenants.close()


def listing(site: Site) -> list[tuple[int, str]]:
    """Return the sessions of the site's user as the shim names them."""
    sys.path.insert(0, str(SHIM))
    try:
        import shim_servers  # type: ignore[import-not-found, unused-ignore]
    finally:
        sys.path.remove(str(SHIM))
    found = shim_servers.server_of({"db_type": site.server.kind})
    with site.server.connect(site.name, PASSWORD, site.name).cursor() as cursor:
        cursor.execute(found.others + found.of_user, (site.name,))
        return [(int(number), str(host)) for number, host in cursor.fetchall()]


def prepare(site: Site, nonce: str = "n1", **words: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Make the database of a new site."""
    creation = {**CREATION, "nonce": nonce, "database": site.name}
    request = {"creation": creation, "site_password": PASSWORD, "fresh": False, **root(site), **words}
    sessions, answer = site.ask("prepare", **request)
    assert sessions
    return answer


@pytest.fixture
def unmade(server: Server, tmp_path: Path) -> Site:
    """Return a site without a database."""
    return Site(tmp_path, server)


def test_a_database_is_made_once_and_only_its_own_creation_goes_on_with_it(unmade: Site) -> None:
    """Hazards 1, 2: a fresh one never where something is; again by the same nonce, no other one, not when done."""
    assert prepare(unmade, fresh=True) == {"ok": True}
    state = unmade.state()
    assert (state.kind, state.record.creation) == (
        Kind.HALF_MADE,
        record.Creation("n1", "s1", unmade.name, 3, 1.0),
    )
    unmade.sql("CREATE TABLE half (name VARCHAR(10))")
    assert "appeared in this moment" in prepare(unmade, fresh=True)["foreign"]
    unmade.server.connect(unmade.name, PASSWORD, unmade.name)
    assert prepare(unmade, site_password="other-canary") == {"ok": True}
    unmade.configure(db_password="other-canary")
    assert unmade.state().kind is Kind.HALF_MADE
    assert "made it" in prepare(unmade, nonce="n2")["foreign"]
    assert unmade.write("creation", {**CREATION, "done": True}, 9)["ok"]
    assert "finished site s1" in prepare(unmade)["foreign"]
    assert unmade.state().kind is Kind.HALF_MADE


def test_an_administrator_who_may_not_grant_everything_makes_a_database(unmade: Site) -> None:
    """Point 21, RDS: what can be granted there is enough for the site to work."""
    assert prepare(unmade, fresh=True, rds=True) == {"ok": True}
    unmade.finish()
    assert unmade.state().kind is Kind.HEALTHY
    if unmade.server.kind == "mariadb":
        grants = " ".join(row[0] for row in unmade.sql("SHOW GRANTS"))
        assert "ALL PRIVILEGES" not in grants
        assert "LOCK TABLES" in grants


def test_a_database_of_somebody_else_is_neither_filled_nor_dropped(site: Site) -> None:
    """Hazard 1: it has tables and no record; a creation's word alone changes nothing."""
    assert "no record of a creation" in prepare(site)["foreign"]
    creation = {**CREATION, "database": site.name}
    assert "no record" in site.ask("discard", creation=creation, **root(site))[1]["foreign"]
    assert site.state() == State(Kind.HEALTHY, apps=("frappe",), database_name=site.name)


def test_a_half_made_database_of_ours_is_dropped_although_a_request_left_its_transaction_open(unmade: Site) -> None:
    """Real-frappe 5: DROP DATABASE would wait for a day; the site's own sessions are ended first."""
    assert prepare(unmade, fresh=True) == {"ok": True}
    unmade.sql("CREATE TABLE half (name VARCHAR(10))")
    idle = unmade.server.connect(unmade.name, PASSWORD, unmade.name)
    with idle.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT COUNT(*) FROM half")
    begun = time.monotonic()
    sessions, answer = unmade.ask("discard", creation={**CREATION, "database": unmade.name}, **root(unmade))
    assert (bool(sessions), answer) == (True, {"ok": True})
    assert time.monotonic() - begun < 10
    assert unmade.name not in unmade.server.databases()
    with contextlib.suppress(Exception):
        idle.close()


def test_a_backup_carries_the_record(site: Site, tmp_path: Path) -> None:
    """Hazard 6, point 10: dumped by the server's own tool and restored, the database says which revision it is at."""
    site.write("revision", {"revision": "1", "schema": "a", "token": 4}, 4)
    address = {**os.environ, "MYSQL_PWD": PASSWORD, "PGPASSWORD": PASSWORD}
    where, dump = ["-h", HOST], tmp_path / "dump.sql"
    if site.server.kind == "mariadb":
        options = [*where, "-P", str(site.server.port), "-u", site.name]
        save = [program("mariadb-dump"), *options, site.name]
        load = [program("mariadb"), *options, site.name]
    else:
        options = [*where, "-p", str(site.server.port), "-U", site.name]
        save = [program("pg_dump"), "--clean", *options, site.name]
        load = [program("psql"), "-q", *options, site.name]
    with dump.open("wb") as file:
        subprocess.run(save, stdout=file, env=address, check=True, timeout=60)
    site.write("migrating", {"revision": "2", "token": 7}, 7)
    site.write("revision", {"revision": "2", "schema": "b", "token": 7}, 7)
    site.sql("DROP TABLE __frappe_bootstrap")
    with dump.open("rb") as file:
        subprocess.run(load, stdin=file, env=address, check=True, timeout=60, stdout=subprocess.DEVNULL)
    state = site.state()
    assert state.kind is Kind.HEALTHY
    assert state.record == record.SiteRecord(record.Revision("1", "a", token=4))
    assert site.write("migrating", {"revision": "2", "token": 8}, 8)["stale"] == 0


PATCHES = {
    app: [f".v15_0.update_some_field_of_a_document_type_{number:04}" for number in range(count)]
    for app, count in (("frappe", 1500), ("erpnext", 3000), ("hrms", 1000))
}
"""Several large apps: more than a TEXT of MariaDB holds, and more than a socket does."""


@pytest.mark.parametrize("earlier", [False, True])
def test_a_record_with_thousands_of_patches_is_written_and_read_whole(
    server: Server,
    plain_bench: Path,
    environ: dict[str, str],
    earlier: bool,  # noqa: FBT001 - of a parameter
) -> None:
    """It would fail, or be cut off, after the site was closed; a table of an earlier version is widened first."""
    site = Site(plain_bench / "sites", server)
    server.make(site.name, PASSWORD)
    site.finish()
    if earlier:
        site.sql("CREATE TABLE __frappe_bootstrap (name VARCHAR(64) PRIMARY KEY, value TEXT, token BIGINT NOT NULL)")
        site.write("creation", CREATION, 1)
    python = plain_bench / "env/bin/python"
    python.unlink()
    # Through a link Python would not find the drivers of its own environment.
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    address = {"DB_TYPE": server.kind, "DB_HOST": HOST, "DB_PORT": str(server.port)}
    bench = Bench(settings.load({**environ, **address, "SITE": "s1"}), Stop(), os.environ)
    migrating = record.Migrating("2", "schema", patches=PATCHES, earlier=["0" * 16] * 256)
    assert len(record.msgspec.json.encode(migrating)) > 250_000

    def write(context: steps.StepContext) -> None:
        bench.write_record(context, "migrating", migrating)
        bench.write_record(context, "revision", record.Revision("2", "schema", patches=PATCHES))

    with connect("memory://") as coordinator:
        plan = steps.Plan(f"frappe/{site.name}", "2", [steps.Step("write", write)])
        assert steps.run(plan, coordinator, timeout=120) is steps.Outcome.RAN
    found = bench.state().record
    assert found.migrating == migrating
    assert found.revision is not None
    assert found.revision.patches == PATCHES
    assert (found.creation is not None) is earlier
