"""Database servers as the shim sees them: drivers, logins, sessions, and what differs between MariaDB and PostgreSQL.

Error numbers are MariaDB's; those of PostgreSQL are translated, so that whoever asks has one set to judge.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
from contextlib import closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    Json = dict[str, Any]
    """What comes from people's files and from databases, or goes to the other side of the channel."""

    class Cursor(Protocol):
        """What the drivers' cursors have in common."""

        def execute(self, query: str, args: object = None) -> object:
            """Run one statement."""

        def fetchall(self) -> list[Any]:
            """Return the rows that are left."""

        def close(self) -> None:
            """Forget the result."""

    class Connection(Protocol):
        """What the drivers' connections have in common."""

        autocommit: Any

        def cursor(self) -> Cursor:
            """Return a new cursor."""

        def commit(self) -> None:
            """Make the transaction permanent."""

        def rollback(self) -> None:
            """End the transaction."""

        def close(self) -> None:
            """End the session."""


CONNECT_TIMEOUT = 5
READ_TIMEOUT = 15
ACKNOWLEDGE = 30.0
TABLE = "__frappe_bootstrap"
DRIVERS = ("pymysql", "MySQLdb", "psycopg2")
DENIED, NO_DATABASE, NO_SERVER, LOST, OTHER = 1045, 1049, 2003, 2013, 1105


def text(value: object) -> str:
    """Return a column as text; some servers send bytes."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def rows(connection: Connection, query: str, *values: object) -> list[tuple[object, ...]]:
    """Return the rows of one query, as tuples whatever cursors the framework has made the usual ones."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(query, values or None)
        return [tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in cursor.fetchall()]


def run(connection: Connection, statement: str, *values: object) -> None:
    """Run a statement that has no rows."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, values or None)


class MariaDB:
    """MariaDB, with PyMySQL (v14, v15) or mysqlclient (v16)."""

    quote = "`"
    long_text = "LONGTEXT"
    ignore = ("INSERT IGNORE", "")
    tables = "SELECT TABLE_NAME FROM information_schema.tables WHERE TABLE_SCHEMA = DATABASE()"
    databases = "SHOW DATABASES"
    users = "SELECT 1 FROM mysql.user WHERE User = %s"
    me = "SELECT CONNECTION_ID(), HOST FROM information_schema.processlist WHERE ID = CONNECTION_ID()"
    others = "SELECT ID, HOST FROM information_schema.processlist WHERE ID <> CONNECTION_ID()"
    of_user = " AND USER = %s"
    kill = "KILL %s"
    create_database = "CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
    drop_database = ("SET SESSION lock_wait_timeout = 2", "DROP DATABASE IF EXISTS `{name}`")
    drop_user = ("DROP USER IF EXISTS '{name}'@'%'",)

    def connect(self, config: Json, user: str, password: str, database: str | None) -> Connection:
        """Log in."""
        options: Json = {"user": user, "connect_timeout": CONNECT_TIMEOUT, "charset": "utf8mb4"}
        options.update({"read_timeout": READ_TIMEOUT, "write_timeout": READ_TIMEOUT})
        if config.get("db_socket"):
            options["unix_socket"] = config["db_socket"]
        else:
            options.update(host=config.get("db_host") or "127.0.0.1", port=int(config.get("db_port") or 3306))
        if config.get("db_ssl"):
            options["ssl"] = {name: config["db_ssl_" + name] for name in ("ca", "cert", "key")}
            options["ssl"]["check_hostname"] = config["db_ssl"] == "verify"
        for name, words in (("pymysql", ("password", "database")), ("MySQLdb", ("passwd", "db"))):
            try:
                driver: Any = importlib.import_module(name)
            except ImportError:
                continue
            options[words[0]] = password
            connection: Connection = driver.connect(**options, **({words[1]: database} if database else {}))
            return connection
        message = "the bench's environment has neither PyMySQL nor mysqlclient"
        raise LookupError(message)

    def commit_each(self, connection: Connection) -> None:
        """Let each statement commit itself."""
        connection.autocommit(True)  # noqa: FBT003 - it has no keyword

    def make_user(self, connection: Connection, name: str, password: str, *, rds: bool) -> None:
        """Create the site's user, or give it this password; it may come from every address."""
        run(connection, "CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", name, "%", password)
        run(connection, "ALTER USER %s@%s IDENTIFIED BY %s", name, "%", password)
        # An underscore in a grant stands for any letter.
        where = name.replace("_", "\\_")
        run(connection, f"GRANT {RDS if rds else 'ALL PRIVILEGES'} ON `{where}`.* TO %s@%s", name, "%")

    def own(self, connection: Connection, name: str) -> None:
        """Do nothing: here rights, not owners, decide."""

    def make_room(self, connection: Connection) -> None:
        """Let our record's values be longer than 64 KB: where an earlier version made the table they cannot."""
        where = "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s AND COLUMN_NAME = %s"
        query = f"SELECT DATA_TYPE FROM information_schema.columns WHERE {where}"  # noqa: S608 - fixed
        [(kind,)] = rows(connection, query, TABLE, "value")
        if text(kind).upper() != self.long_text:
            run(connection, f"ALTER TABLE {TABLE} MODIFY value {self.long_text}")

    def error(self, error: Exception) -> tuple[int, str] | None:
        """Return number and text of a driver's error; None: it is none."""
        if type(error).__module__.split(".")[0] not in ("pymysql", "MySQLdb", "_mysql_exceptions", "builtins"):
            return None
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        return number, str(error.args[-1] if error.args else error)


RDS = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, ALTER, CREATE TEMPORARY TABLES, CREATE VIEW, EVENT, "
    "TRIGGER, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE, LOCK TABLES"
)
"""What an administrator on RDS may grant."""


class Postgres:
    """PostgreSQL, with psycopg2."""

    quote = '"'
    long_text = "TEXT"
    ignore = ("INSERT", " ON CONFLICT DO NOTHING")
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
    databases = "SELECT datname FROM pg_database"
    users = "SELECT 1 FROM pg_roles WHERE rolname = %s"
    # The time of its begin tells a session from a later one of the same process number.
    _who = (
        "SELECT pid, coalesce(host(client_addr), 'local') || ':' || coalesce(client_port, 0) || '/' || "
        "extract(epoch FROM backend_start) FROM pg_stat_activity WHERE pid "
    )
    me = _who + "= pg_backend_pid()"
    others = _who + "<> pg_backend_pid()"
    of_user = " AND usename = %s"
    kill = "SELECT pg_terminate_backend(%s)"
    create_database = 'CREATE DATABASE "{name}"'
    drop_database = ("SET lock_timeout = '2s'", 'DROP DATABASE IF EXISTS "{name}"')
    drop_user = ('DROP ROLE IF EXISTS "{name}"',)

    def connect(self, config: Json, user: str, password: str, database: str | None) -> Connection:
        """Log in; without a database of one's own the server's usual one is used."""
        try:
            driver: Any = importlib.import_module("psycopg2")
        except ImportError as error:
            message = "the bench's environment has no psycopg2"
            raise LookupError(message) from error
        connection: Connection = driver.connect(
            host=config.get("db_socket") or config.get("db_host") or "127.0.0.1",
            port=int(config.get("db_port") or 5432),
            user=user,
            password=password,
            dbname=database or "postgres",
            connect_timeout=CONNECT_TIMEOUT,
            application_name="frappe-bootstrap",
            options=f"-c statement_timeout={READ_TIMEOUT}s",
            **tls_of_libpq(config),
        )
        return connection

    def commit_each(self, connection: Connection) -> None:
        """Let each statement commit itself."""
        connection.autocommit = True

    def make_user(self, connection: Connection, name: str, password: str, *, rds: bool) -> None:
        """Create the site's role, or give it this password, and the database to it."""
        verb = "ALTER" if rows(connection, self.users, name) else "CREATE"
        run(connection, f'{verb} ROLE "{name}" LOGIN PASSWORD %s', password)
        if rds or not rows(connection, "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper"):
            run(connection, f'GRANT "{name}" TO current_user')
        run(connection, f'ALTER DATABASE "{name}" OWNER TO "{name}"')

    def own(self, connection: Connection, name: str) -> None:
        """Give the record to the site's role."""
        run(connection, f'ALTER TABLE {TABLE} OWNER TO "{name}"')

    def make_room(self, connection: Connection) -> None:
        """Do nothing: here a text has no limit."""

    def error(self, error: Exception) -> tuple[int, str] | None:
        """Return number and text of the driver's error; None: it is none.

        A failed login has no code, only words; in another language they are taken for a server that is not ready.
        """
        if type(error).__module__.split(".")[0] not in ("psycopg2", "builtins"):
            return None
        words, code = str(error).strip(), getattr(error, "pgcode", None)
        if code:
            return _SQLSTATES.get(code, LOST if code.startswith(("57", "55P")) else OTHER), words
        denied = "authentication failed" in words or "no pg_hba.conf entry" in words or "role" in words
        if "database" in words and "does not exist" in words and not denied:
            return NO_DATABASE, words
        return (DENIED if denied and "FATAL" in words else NO_SERVER), words


def tls_of_libpq(config: Json) -> Json:
    """Return libpq's words for what the configuration says about TLS."""
    if not config.get("db_ssl"):
        return {}
    words = {"sslrootcert": "ca", "sslcert": "cert", "sslkey": "key"}
    found = {word: config["db_ssl_" + name] for word, name in words.items() if config.get("db_ssl_" + name)}
    return {"sslmode": "verify-full" if config["db_ssl"] == "verify" else "require", **found}


_SQLSTATES = {"28P01": DENIED, "28000": DENIED, "42501": 1044, "3D000": NO_DATABASE, "53300": 1040}


def server_of(config: Json) -> MariaDB | Postgres:
    """Return how to talk to the server that a configuration names."""
    return Postgres() if config.get("db_type") == "postgres" else MariaDB()


def attempt(config: Json, user: str, password: str, database: str | None, work: Callable[[Connection], Json]) -> Json:
    """Log in, let ``work`` add to the answer, and say what the server said if it did not let us."""
    server = server_of(config)
    try:
        with closing(server.connect(config, user, password, database)) as connection:
            return {"ok": True, **work(connection)}
    except LookupError as error:
        return {"ok": False, "errno": 0, "error": str(error)}
    except Exception as error:
        known = server.error(error)
        if known is None:
            raise
        return {"ok": False, "errno": known[0], "error": known[1][:500]}


def announce(server: MariaDB | Postgres, connection: Connection, channel: int) -> None:
    """Tell the session's id and client address, and wait until they are written down."""
    [(number, host)] = rows(connection, server.me)
    connection.rollback()
    known = int(text(number))
    os.write(channel, json.dumps({"session": known, "host": text(host)}).encode() + b"\n")
    # A line of its own, also after half of one: the other side takes it away again.
    os.write(1, b"\ndatabase session %d\n" % known)
    if not (select.select([channel], [], [], ACKNOWLEDGE)[0] and os.read(channel, 1)):
        sys.exit("frappe-bootstrap did not note this database session: stopping before its first statement")
