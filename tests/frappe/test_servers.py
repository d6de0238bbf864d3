"""The same boots against a real MariaDB and a real Redis, which holds the leases, the cache and the queue."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pymysql
import pytest

from frappe_bootstrap.bench import SHIM
from tests.frappe.conftest import DONE, LIMIT, Fleet, done_steps
from tests.servers import free_port
from tests.standin.fleet import Gate, make_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"


def program(name: str) -> str:
    """Return the path of a server program; without it these tests fail, they are not skipped."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    assert path, f"{name} is missing: install it"
    return path


@contextlib.contextmanager
def serving(command: list[str], ready: str) -> Iterator[None]:
    """Run a server until the block ends; it is entered when the server says that it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout
        seen = []
        for line in server.stdout:
            seen.append(line)
            if ready in line:
                break
        assert server.poll() is None, "".join(seen)
        yield
        server.terminate()
        server.communicate(timeout=LIMIT)


@pytest.fixture
def real(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet without stand-in servers."""
    ports = {"DB_PORT": free_port(), "REDIS_CACHE_PORT": free_port()}
    secret = fleet.canaries["DB_ROOT_PASS"]
    data, user = f"--datadir={tmp_path / 'data'}", f"--user={'root' if os.geteuid() == 0 else os.environ['USER']}"
    small = ["--innodb-log-file-size=4M"]
    install = [program("mariadb-install-db"), "--no-defaults", data, user, "--skip-test-db", *small]
    subprocess.run(install, check=True, capture_output=True, timeout=LIMIT)
    (tmp_path / "init.sql").write_text(
        f"CREATE OR REPLACE USER 'root'@'%' IDENTIFIED BY '{secret}';\n"
        "GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;\n"
        "DROP USER IF EXISTS 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1', ''@'localhost';\n"
    )
    database = [program("mariadbd"), "--no-defaults", data, user, *small, f"--init-file={tmp_path / 'init.sql'}"]
    database += [f"--port={ports['DB_PORT']}", f"--bind-address={HOST}", f"--socket={tmp_path / 'db.sock'}"]
    database += ["--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"]
    redis = [program("redis-server"), "--port", str(ports["REDIS_CACHE_PORT"]), "--bind", HOST, "--save", ""]
    redis += ["--requirepass", "canary@redis", "--dir", str(tmp_path)]
    for number in range(3):
        path = tmp_path / f"bench-{number}"
        fleet.benches.append(
            make_bench.make_bench(path, ["demo_app"], real_pymysql=True, apps_txt=False, sites=fleet.sites)
        )
    fleet.environ |= {name: str(port) for name, port in ports.items()}
    fleet.environ |= {"REDIS_QUEUE_PORT": fleet.environ["REDIS_CACHE_PORT"], "REDIS_PASS": "canary@redis"}
    del fleet.environ["COORDINATE_URL"]
    with serving(database, "ready for connections"), serving(redis, "Ready to accept connections"):
        yield fleet
        fleet.close()


ALTER = """
import json, pymysql
def execute():
    config = json.load(open("{config}"))
    common = json.load(open("common_site_config.json"))
    link = pymysql.connect(host=common["db_host"], port=common["db_port"], user=config["db_name"],
                           password=config["db_password"], database=config["db_name"])
    link.cursor().execute("ALTER TABLE big ADD COLUMN slow BIGINT AS (CRC32(SHA2(REPEAT(SHA2(seq, 512), 20000), 512)))"
                          " PERSISTENT, ALGORITHM=COPY")
"""


def sessions(fleet: Fleet) -> list[str]:
    """Return what the server is doing for others than this question."""
    options = {"host": HOST, "port": int(fleet.environ["DB_PORT"]), "user": "root"}
    with (
        contextlib.closing(pymysql.connect(password=fleet.canaries["DB_ROOT_PASS"], **options)) as link,
        link.cursor() as cursor,
    ):
        cursor.execute(
            "SELECT INFO FROM information_schema.processlist WHERE ID <> CONNECTION_ID() AND HOST LIKE '127.%'"
        )
        return [str(row[0]) for row in cursor.fetchall()]


def test_three_cold_replicas_serve_with_leases_in_redis(real: Fleet) -> None:
    """The least environment: the queue's server holds the leases."""
    replicas = [real.start("echo", "serving") for _ in range(3)]
    results = [(child.communicate(timeout=LIMIT), child.returncode) for child in replicas]
    assert [(out, code) for (out, _), code in results] == [("serving\n", 0)] * 3, results
    assert sorted(step for (_, err), _ in results for step in done_steps(err)) == sorted(DONE)
    assert not [err for (_, err), _ in results if "canary" in err]
    assert "canary%40redis" in (real.sites / "common_site_config.json").read_text()


def test_a_leader_killed_amid_a_statement_is_replaced(real: Fleet, tmp_path: Path) -> None:
    """After the lease's length; at the end nobody is connected any more."""
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:locked")
    slow = {"STANDIN_DIE_CALL": gate.environ["STANDIN_DIE_CALL"], "STANDIN_SLOW_SQL": "migrate:locked=600"}
    leader = real.start(LOCK_RENEW_TTL_SECS="3", LOCK_HEARTBEAT_SECS="1", **slow)
    gate.wait()
    while "SELECT SLEEP(600.0)" not in sessions(real):
        assert leader.poll() is None
    leader.kill()
    code, out, err = real.run("echo", "serving", LOCK_RENEW_TTL_SECS="3", LOCK_HEARTBEAT_SECS="1")
    assert (code, out) == (0, "serving\n"), err
    assert sessions(real) == []


def test_an_orphaned_alter_is_gone_before_the_next_migration_says_a_word(real: Fleet) -> None:
    """Point 2: the server goes on with it after kill -9; its own log shows in which order the statements came."""
    assert real.run(APPS="demo_app")[0] == 0
    config = real.bench.config()
    root = {"host": HOST, "port": int(real.environ["DB_PORT"]), "user": "root", "autocommit": True}
    link = pymysql.connect(password=real.canaries["DB_ROOT_PASS"], database=config["db_name"], **root)
    with contextlib.closing(link), link.cursor() as cursor:
        cursor.execute("CREATE TABLE big AS SELECT seq FROM seq_1_to_6000")
        cursor.execute("SET GLOBAL log_output = 'TABLE'")
        cursor.execute("SET GLOBAL general_log = 1")
        for bench in real.benches:
            package = make_bench.make_app(bench, "demo_app", ["p1", "p2", "p9"])
            (package / "patches" / "p9.py").write_text(ALTER.format(config=real.sites / "s1" / "site_config.json"))
        leader = real.start(IMAGE_REV="2", LOCK_RENEW_TTL_SECS="3", LOCK_HEARTBEAT_SECS="1")
        while not any("ALTER TABLE big" in info for info in sessions(real)):
            assert leader.poll() is None
        leader.kill()
        follower = real.start("echo", "serving", IMAGE_REV="3", LOCK_RENEW_TTL_SECS="3", LOCK_HEARTBEAT_SECS="1")
        log = "SELECT argument LIKE 'KILL %' FROM mysql.general_log WHERE"
        log += " argument LIKE 'KILL %' OR argument LIKE 'ALTER T%big%'"
        order: list[bool] = []
        while order.count(False) < 2:
            assert follower.poll() is None, follower.communicate(timeout=LIMIT)
            cursor.execute(f"{log} ORDER BY event_time")
            order = [bool(row[0]) for row in cursor.fetchall()]
        assert sum("ALTER TABLE big" in info for info in sessions(real)) == 1
        assert (order[0], order[-1]) == (False, False)
        assert any(order)
    follower.kill()


def test_a_noted_session_is_killed_and_nobody_elses(real: Fleet) -> None:
    """operating-frappe 2: other containers share the database user, and a restarted server counts from 1 again."""
    assert real.run()[0] == 0
    config = real.bench.config()
    login = {"host": HOST, "port": int(real.environ["DB_PORT"]), "user": config["db_name"]}
    links = [pymysql.connect(password=config["db_password"], **login) for _ in range(2)]
    dead, other = links
    with contextlib.ExitStack() as stack:
        for link in links:
            # The driver's close() refuses a connection that it has found dead.
            stack.callback(link._force_close)
        with dead.cursor() as cursor:
            cursor.execute("SELECT ID, HOST FROM information_schema.processlist WHERE ID = CONNECTION_ID()")
            number, host = cursor.fetchone() or (0, "")
        noted = [[number, host], [other.thread_id(), "elsewhere:1"]]
        server = {"db_host": HOST, "db_port": login["port"]}
        request = {"job": "settle", "site": "s1", "server": server, "sessions": noted, "timeout": 20}
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(json.dumps(request).encode() + b"\n")
            command = [str(real.benches[0] / "env/bin/python"), str(SHIM), str(theirs.fileno())]
            subprocess.run(command, cwd=real.sites, pass_fds=[theirs.fileno()], check=True, timeout=LIMIT)
            answer = json.loads(ours.recv(65536))
        assert answer == {"ok": True, "error": "", "errno": 0}
        other.ping(reconnect=False)
        with pytest.raises(pymysql.Error):
            dead.ping(reconnect=False)
