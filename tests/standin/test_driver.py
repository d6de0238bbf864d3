"""The driver stand-in by itself: many processes, transactions, kills (operating-frappe 2, 4)."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.standin.fleet import LIMIT

if TYPE_CHECKING:
    from tests.standin.fleet import Bench

WRITER = """
import pymysql
for number in range(25):
    connection = pymysql.connect(user="root", password="root-canary", database="shared")
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM counter WHERE name = %s FOR UPDATE", ("x",))
        [value] = cursor.fetchone()
        cursor.execute("UPDATE counter SET value = %s WHERE name = %s", (value + 1, "x"))
    connection.commit()
    connection.close()
"""


@pytest.fixture
def shared(bench: Bench) -> Bench:
    """Return a bench whose server has a database with one counter."""
    bench.as_root("CREATE DATABASE shared")
    with bench.connect(database="shared") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE counter (name VARCHAR(10) PRIMARY KEY, value INT)")
        cursor.execute("INSERT INTO counter VALUES ('x', 0)")
    return bench


def test_many_processes_lose_no_update_and_leave_no_session(shared: Bench) -> None:
    """Everything must be safe with many processes at once."""
    command = [str(shared.path / "env" / "bin" / "python"), "-c", WRITER]
    writers = [subprocess.Popen(command, env=shared.environ) for _ in range(4)]
    assert [writer.wait(LIMIT) for writer in writers] == [0, 0, 0, 0]
    with shared.connect(database="shared") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT value FROM counter")
        assert cursor.fetchone() == (100,)
        cursor.execute("SHOW PROCESSLIST")
        assert cursor.rowcount == 1


def test_a_close_without_commit_undoes_and_ddl_commits(shared: Bench) -> None:
    """Autocommit is off by default, as in PyMySQL; DDL is not transactional."""
    with shared.connect(database="shared", autocommit=False) as connection:
        connection.cursor().execute("UPDATE counter SET value = 5")
    with shared.connect(database="shared", autocommit=False) as connection:
        connection.cursor().execute("UPDATE counter SET value = value + 1")
        connection.cursor().execute("CREATE TABLE other (name VARCHAR(10))")
    with shared.connect(database="shared") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT value FROM counter")
        assert cursor.fetchone() == (1,)


def test_a_killed_session_gets_2013_at_its_next_word_and_is_not_listed(shared: Bench) -> None:
    """operating-frappe 2: KILL, by root or by the same user."""
    with contextlib.closing(shared.connect()) as victim:
        shared.as_root(f"KILL {victim.thread_id()}")
        assert len(shared.as_root("SHOW PROCESSLIST")) == 1
        with pytest.raises(shared.driver.err.OperationalError) as lost, victim.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert lost.value.args[0] == 2013
        victim.connect()


def test_a_server_that_goes_down_is_2013_for_the_connected_and_2003_for_newcomers(shared: Bench) -> None:
    """real-frappe 4: the two faces of a lost server; a missing folder is the same as one marked down."""
    down = shared.path.parent / "server" / "down"
    with contextlib.closing(shared.connect()) as connected:
        down.touch()
        with pytest.raises(shared.driver.err.OperationalError, match="2013"):
            connected.ping()
        with pytest.raises(shared.driver.err.OperationalError, match="2003"):
            shared.connect()
        down.unlink()
        connected.ping(reconnect=True)


def test_a_misspelt_argument_is_a_type_error(shared: Bench) -> None:
    """A stand-in that takes anything would hide mistakes of its callers."""
    with pytest.raises(TypeError, match="pasword"):
        shared.connect(pasword="x")


def test_a_read_timeout_ends_a_long_statement(shared: Bench) -> None:
    """operating-frappe 3: a deadline on everything; the driver's own is 2013."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(shared.connect(read_timeout=0.05))
        with pytest.raises(shared.driver.err.OperationalError) as lost:
            connection.cursor().execute("SELECT SLEEP(10)")
    assert lost.value.args[0] == 2013
