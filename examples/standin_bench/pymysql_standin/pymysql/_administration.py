"""Statements for the server itself, not for one database: users, databases, grants, KILL, SHOW, SET."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from . import _sessions, _sql, err

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connections import Connection

Rows = list[tuple[object, ...]]
_ACCOUNT = r"['`](?P<user>[^'`]+)['`]\s*@\s*['`](?P<host>[^'`]+)['`]"
_IF = r"IF\s+(?:NOT\s+)?EXISTS\s+"
_QUOTED = r"'(?P<password>(?:[^'\\]|\\.|'')*)'"


def _root_only(connection: Connection) -> None:
    if "*" not in connection.allowed:
        raise err.OperationalError(1227, "Access denied; you need (at least one of) the SUPER privilege(s)")


def _set_user(connection: Connection, match: re.Match[str]) -> Rows:
    """CREATE USER or ALTER USER."""
    _root_only(connection)
    user, host, verb = match["user"], match["host"], match["verb"].upper()
    with connection.store.changing_users() as users:
        known = host in users.get(user, {})
        if known != (verb == "ALTER") and not (known and match["absent"]):
            raise err.OperationalError(1396, f"Operation {verb} USER failed for '{user}'@'{host}'")
        account = users.setdefault(user, {}).setdefault(host, {"databases": []})
        if not known or verb == "ALTER":
            account["password"] = _sql.unescape(match["password"])
    return []


def _drop_user(connection: Connection, match: re.Match[str]) -> Rows:
    _root_only(connection)
    user, host = match["user"], match["host"]
    with connection.store.changing_users() as users:
        if users.get(user, {}).pop(host, None) is None and not match["exists"]:
            raise err.OperationalError(1396, f"Operation DROP USER failed for '{user}'@'{host}'")
    return []


def _grant(connection: Connection, match: re.Match[str]) -> Rows:
    _root_only(connection)
    with connection.store.changing_users() as users:
        account = users.get(match["user"], {}).get(match["host"])
        if account is None:
            raise err.OperationalError(1133, "Can't find any matching row in the user table")
        account["databases"].append(match["name"].replace("\\", ""))
    return []


def _create_database(connection: Connection, match: re.Match[str]) -> Rows:
    name = match["name"]
    connection.check_database(name)
    with connection.store.lock():
        path = connection.store.path(name)
        if not path.exists():
            path.touch()
        elif not match["absent"]:
            raise err.ProgrammingError(1007, f"Can't create database '{name}'; database exists")
    return []


def _drop_database(connection: Connection, match: re.Match[str]) -> Rows:
    """Wait, as a server does, for every other session with an open transaction on that database."""
    name = match["name"]
    connection.check_database(name)
    path = connection.store.path(name)
    if not path.exists() and not match["exists"]:
        raise err.OperationalError(1008, f"Can't drop database '{name}'; database doesn't exist")
    end = time.monotonic() + float(connection.variables.get("lock_wait_timeout", 86400))
    while any(
        session["db"] == name and session["in_use"] and session["id"] != connection.thread_id()
        for session in _sessions.listing(connection.store)
    ):
        connection.check_alive()
        if time.monotonic() > end:
            raise err.OperationalError(1205, "Lock wait timeout exceeded; try restarting transaction")
        time.sleep(0.01)
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return []


def _kill(connection: Connection, match: re.Match[str]) -> Rows:
    """A user may kill its own sessions, root any."""
    number = int(match["number"])
    owners = {session["id"]: session["user"] for session in _sessions.listing(connection.store)}
    if number not in owners:
        raise err.OperationalError(1094, f"Unknown thread id: {number}")
    if owners[number] != connection.user and "*" not in connection.allowed:
        raise err.OperationalError(1095, f"You are not owner of thread {number}")
    _sessions.kill(connection.store, number)
    return []


def _show(connection: Connection, match: re.Match[str]) -> Rows:
    what = match["what"].upper()
    if what == "DATABASES":
        names = connection.visible_databases()
    else:
        names = [str(row[0]) for row in connection.run("SELECT name FROM sqlite_master WHERE type = 'table'")]
    pattern = match["like"]
    if pattern:
        like = re.escape(_sql.unescape(pattern)).replace("%", ".*").replace("_", ".")
        names = [name for name in names if re.fullmatch(like, name, re.IGNORECASE)]
    return [(name,) for name in names]


def _processes(connection: Connection, _: re.Match[str]) -> Rows:
    return connection.process_rows()


def _set(connection: Connection, match: re.Match[str]) -> Rows:
    for name, value in re.findall(r"(?:SESSION\s+|@@)?(\w+)\s*=\s*([^,]+)", match["rest"], re.IGNORECASE):
        connection.variables[name.lower()] = value.strip(" '\"")
    if connection.variables.get("autocommit") in ("0", "1"):
        connection.autocommit(connection.variables.pop("autocommit") == "1")
    return []


def _use(connection: Connection, match: re.Match[str]) -> Rows:
    connection.select_db(match["name"])
    return []


def _nothing(_connection: Connection, _match: re.Match[str]) -> Rows:
    return []


_STATEMENTS: tuple[tuple[re.Pattern[str], Callable[[Connection, re.Match[str]], Rows]], ...] = tuple(
    (re.compile(r"\s*" + pattern + r"\s*;?\s*", re.IGNORECASE | re.DOTALL), action)
    for pattern, action in (
        (
            rf"(?P<verb>CREATE|ALTER)\s+USER\s+(?P<absent>{_IF})?{_ACCOUNT}\s+IDENTIFIED\s+BY\s+{_QUOTED}",
            _set_user,
        ),
        (rf"DROP\s+USER\s+(?P<exists>IF\s+EXISTS\s+)?{_ACCOUNT}", _drop_user),
        (rf"GRANT\s+.+?\s+ON\s+[`]?(?P<name>[\w\\*]+)[`]?\.\*\s+TO\s+{_ACCOUNT}.*", _grant),
        (r"CREATE\s+DATABASE\s+(?P<absent>IF\s+NOT\s+EXISTS\s+)?`?(?P<name>\w+)`?.*", _create_database),
        (r"DROP\s+DATABASE\s+(?P<exists>IF\s+EXISTS\s+)?`?(?P<name>\w+)`?", _drop_database),
        (r"KILL\s+(?:HARD\s+|SOFT\s+)?(?:CONNECTION\s+|QUERY\s+)?(?P<number>\d+)", _kill),
        (r"SHOW\s+(?:FULL\s+)?(?P<what>DATABASES|TABLES)(?:\s+LIKE\s+'(?P<like>[^']*)')?", _show),
        (r"SHOW\s+(?:FULL\s+)?PROCESSLIST", _processes),
        (r"USE\s+`?(?P<name>\w+)`?", _use),
        (r"SET\s+(?!PASSWORD)(?P<rest>.*)", _set),
        (r"FLUSH\s+PRIVILEGES|(?:UN)?LOCK\s+TABLES.*", _nothing),
    )
)
_RESERVED = re.compile(r"\s*(CREATE|ALTER|DROP)\s+(USER|DATABASE)\b|\s*GRANT\b", re.IGNORECASE)


def administer(connection: Connection, sql: str) -> Rows | None:
    """Run a server statement and return its rows; ``None`` says that the text is not one."""
    for pattern, action in _STATEMENTS:
        if match := pattern.fullmatch(sql):
            return action(connection, match)
    if _RESERVED.match(sql):
        raise err.ProgrammingError(1064, "You have an error in your SQL syntax")
    return None
