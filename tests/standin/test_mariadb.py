"""The same stand-in against a real MariaDB server, and the driver stand-in measured against the real driver."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from tests.servers import free_port
from tests.standin.fleet import LIMIT, ROOT_PASSWORD, Bench, make_bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "127.0.0.1"
INIT = f"""
CREATE OR REPLACE USER 'root'@'%' IDENTIFIED BY '{ROOT_PASSWORD}';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;
DROP USER IF EXISTS 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1', ''@'localhost';
"""


def program(name: str) -> str:
    """Return the path of a server program; without it these tests fail, they are not skipped."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    assert path, f"{name} is missing: install MariaDB's server"
    return path


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a MariaDB server of our own, as the user who runs the tests, until the module is done."""
    folder = tmp_path_factory.mktemp("mariadb")
    (folder / "init.sql").write_text(INIT)
    user = f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', 'nobody')}"
    data = f"--datadir={folder / 'data'}"
    install = [program("mariadb-install-db"), "--no-defaults", data, user]
    modest = ["--skip-test-db", "--auth-root-authentication-method=normal", "--innodb-log-file-size=4M"]
    subprocess.run([*install, *modest], check=True, capture_output=True, timeout=60)
    number = free_port()
    command = [program("mariadbd"), "--no-defaults", data, user, f"--init-file={folder / 'init.sql'}"]
    # As on the measured bench, but nothing here has to survive a power cut.
    command += [f"--bind-address={HOST}", f"--port={number}", f"--socket={folder / 'socket'}"]
    command += ["--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=4M", "--skip-name-resolve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        seen = []
        for line in server.stderr:
            seen.append(line)
            if "ready for connections" in line:
                break
        assert server.poll() is None, "".join(seen)
        yield number
        server.terminate()
        server.communicate(timeout=LIMIT)


@pytest.fixture
def real(port: int, cache_port: int, tmp_path: Path) -> Bench:
    """Return a bench with the real driver and the real server."""
    config = {"redis_cache": f"redis://{HOST}:{cache_port}", "db_host": HOST, "db_port": port}
    path = make_bench.make_bench(tmp_path / "real", ["demo_app"], real_pymysql=True, common_config=config)
    return Bench(path, {"STANDIN_SCALE": "0", "STANDIN_DIR": str(tmp_path / "fleet")}, driver=pymysql)


def sessions(bench: Bench) -> list[Any]:
    """Return id and statement of the other sessions of the site's user, as that user sees them."""
    query = "SELECT ID, INFO FROM information_schema.processlist WHERE ID <> CONNECTION_ID() AND DB = %s"
    return bench.sql(query, bench.config()["db_name"])


def wait_until_gone(bench: Bench) -> None:
    """Wait until the server has noticed that a client is gone."""
    while sessions(bench):
        pass


def test_the_whole_life_of_a_site_with_a_kill_in_the_middle(real: Bench) -> None:
    """real-frappe 5 to 7: create, install, migrate killed in p2, taken over; p2's write was undone."""
    assert real.new_site("--mariadb-user-host-login-scope=%", "--install-app", "demo_app").returncode == 0
    assert real.installed() == ["frappe", "demo_app"]
    make_bench.make_app(real.path, "demo_app", ["p1", "p2", "p3", "p4"])
    assert real.run("--site", "s1", "migrate", STANDIN_DIE="migrate:in_patch@p4").returncode == -9
    wait_until_gone(real)
    assert [real.runs_of(f"patch:demo_app.patches.{name}") for name in ("p3", "p4")] == [1, 0]
    real.ok("--site", "s1", "migrate")
    assert [real.runs_of(f"patch:demo_app.patches.{name}") for name in ("p3", "p4")] == [1, 1]
    assert real.ok("--site", "s1", "list-apps", "-f", "json") == '{"s1": ["frappe", "demo_app"]}\n'
    assert "already installed" in real.ok("--site", "s1", "install-app", "demo_app")


def test_a_killed_new_site_is_taken_over_with_force_only(real: Bench) -> None:
    """real-frappe 5: the half-made states and the way out of them."""
    assert real.new_site(STANDIN_DIE="new-site:doctypes@36").returncode == -9
    assert real.installed() is None
    assert real.run("--site", "s1", "list-apps").returncode == 0
    assert real.run("--site", "s1", "migrate").returncode == 1
    (real.sites / "s1").rename(real.sites / "aside")
    assert "already exists" in real.new_site().stdout
    with pytest.raises(pymysql.err.OperationalError) as refused:
        real.connect_site()
    assert refused.value.args[0] == 1045
    assert real.new_site("--force").returncode == 0
    assert real.installed() == ["frappe"]


def test_the_server_goes_on_after_its_client_was_killed(real: Bench) -> None:
    """operating-frappe 2: the statement runs on while Frappe's lock is free; the site user may kill it."""
    assert real.new_site("--install-app", "demo_app").returncode == 0
    make_bench.make_app(real.path, "demo_app", ["p1", "p2", "p3"])
    slow = {"STANDIN_SLOW_SQL": "migrate:in_patch@p3=60"}
    with real.started("--site", "s1", "migrate", **slow) as process:
        while not any("SLEEP" in (info or "") for _, info in sessions(real)):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    [(number, info)] = sessions(real)
    assert "SLEEP" in info
    real.sql(f"KILL {number}")
    wait_until_gone(real)
    real.ok("--site", "s1", "migrate")
    assert real.runs_of("patch:demo_app.patches.p3") == 1


def test_force_hangs_while_a_failed_request_left_its_transaction_open(real: Bench) -> None:
    """real-frappe 5: DROP DATABASE waits for the metadata lock until the idle session is killed."""
    real.new_site(STANDIN_DIE="new-site:doctypes@36")
    with contextlib.closing(real.connect_site(autocommit=False)) as idle:
        idle.cursor().execute("SELECT COUNT(*) FROM tabDocField")
        words = ("--db-root-password", ROOT_PASSWORD, "--admin-password", "a")
        with real.started("new-site", "s1", "--force", *words) as forced:
            query = "SELECT 1 FROM information_schema.processlist WHERE STATE LIKE '%metadata lock%'"
            while not real.as_root(query):
                assert forced.poll() is None
            real.as_root(f"KILL {idle.thread_id()}")
            out, _ = forced.communicate(timeout=LIMIT)
    assert forced.returncode == 0, out


@pytest.mark.parametrize(("password", "number"), [("it's", "1064"), ("back\\slash", "1045")])
def test_a_password_with_a_quote_or_backslash_leaves_a_half_made_site(real: Bench, password: str, number: str) -> None:
    """operating-frappe 6: on the real server, too."""
    done = real.new_site("--db-password", password)
    assert done.returncode == 1
    assert number in done.stderr
    assert (real.sites / "s1" / "site_config.json").exists()


PARITY = [
    ("SELECT * FROM nowhere", 1146),
    ("SELECT absent FROM tabSingles", 1054),
    ("SELEKT 1", 1064),
    ("CREATE TABLE tabSingles (a INT)", 1050),
    ("INSERT INTO tabUser (name) VALUES ('Guest')", 1062),
    ("KILL 999999999", 1094),
    ("DROP DATABASE nobodys", 1044),
    ("CREATE USER 'a'@'%' IDENTIFIED BY 'b'", 1227),
    ("INSERT INTO tabUser (name, enabled) VALUES ('Guest', 1) ON DUPLICATE KEY UPDATE enabled=VALUES(enabled)", 0),
    ("CREATE TABLE IF NOT EXISTS `__x` (a INT, b TEXT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4", 0),
    ("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()", 0),
    ("SELECT SCHEMA_NAME FROM information_schema.schemata WHERE schema_name = DATABASE()", 0),
    ("SELECT id, user, db, command, time, state, info FROM information_schema.processlist", 0),
    ("SELECT HOST FROM information_schema.processlist WHERE ID = CONNECTION_ID()", 0),
    ("SHOW TABLES LIKE 'tabDefaultValue'", 0),
    ("SELECT defvalue FROM `tabDefaultValue` WHERE `parent` = '__global' FOR UPDATE", 0),
    ("SET SESSION lock_wait_timeout = 5", 0),
    ("SELECT CONNECTION_ID(), DATABASE(), VERSION(), NOW()", 0),
]
LOGINS = [
    ({"password": "wrong"}, 1045),
    ({"user": "unknown"}, 1045),
    ({"database": "not_mine"}, 1044),
    ({"port": 1}, 2003),
    ({"user": "root", "password": ROOT_PASSWORD, "database": "missing"}, 1049),
]


def number_of(driver: Any, action: Callable[[], object]) -> tuple[str, int]:  # noqa: ANN401 - a driver module
    """Return class and number of the error that an action ends with."""
    try:
        action()
    except driver.err.Error as error:
        return type(error).__name__, error.args[0]
    return "", 0


def test_both_drivers_give_the_same_errors(real: Bench, site: Bench) -> None:
    """The driver stand-in against PyMySQL and a real server: same class, same number, for every case."""
    assert real.new_site().returncode == 0
    for bench in (real, site):
        for options, number in LOGINS:
            failed = number_of(bench.driver, functools.partial(bench.connect_site, **options))
            assert failed == ("OperationalError", number), options
    found = [
        (statement, *(number_of(bench.driver, functools.partial(bench.sql, statement)) for bench in (real, site)))
        for statement, _ in PARITY
    ]
    assert [case for case in found if case[1] != case[2]] == []
    assert [(statement, outcome[1]) for statement, outcome, _ in found] == PARITY
