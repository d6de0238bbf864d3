"""The one file that the bench's own Python runs (3.10 to 3.14, standard library only).

Its single argument is the number of an inherited socket. The first line read from it is a JSON request; answers are
JSON lines on the same socket. Nothing secret is in its arguments or its environment, and what a bench command prints
passes a filter here, before anybody else reads it, that replaces the request's secrets by ``***``. A boot starts it
many times, so it imports little.

Jobs: ``bench`` runs a framework command in process; ``inspect`` says what is there and changes nothing; ``settle``
ends database sessions that an earlier attempt left behind.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
import warnings
from contextlib import closing, suppress

TYPE_CHECKING = False  # the real one costs an import of typing at every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    Json = dict[str, Any]
    """What comes from people's files and from databases, or goes to the other side of the channel."""

    class Cursor(Protocol):
        """What both drivers' cursors have in common."""

        def execute(self, query: str, args: object = None) -> object:
            """Run one statement."""

        def fetchone(self) -> tuple[object, ...] | dict[str, object] | None:
            """Return the next row; some cursors give it names."""

        def fetchall(self) -> tuple[tuple[object, ...], ...]:
            """Return the rows that are left."""

        def close(self) -> None:
            """Forget the result."""

    class Connection(Protocol):
        """What both drivers' connections have in common."""

        def cursor(self) -> Cursor:
            """Return a new cursor."""

        def rollback(self) -> None:
            """End the transaction."""

        def thread_id(self) -> int:
            """Return the server's number of this session."""

        def close(self) -> None:
            """End the session."""

    class Driver(Protocol):
        """PyMySQL or mysqlclient."""

        connect: Callable[..., Connection]


CONNECT_TIMEOUT = 5
READ_TIMEOUT = 15
ACKNOWLEDGE = 30.0
BAD_JSON_PATIENCE = 1.0
ANSWERS_FOR = 60.0
LOST = 128


def main() -> None:
    """Read the request and do the job."""
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)  # noqa: FBT003 - it has no keyword
    with open(channel, "rb", buffering=0, closefd=False) as stream:  # unbuffered: what follows the line stays there
        request = json.loads(stream.readline())
    # The folder of this file must not hide the bench's modules: python -m puts the current folder first.
    sys.path[0] = os.getcwd()  # noqa: PTH109 - importing pathlib would delay every start
    if request["job"] == "bench":
        sys.exit(filtered(request.get("secrets", []), lambda: bench(channel, request)))
    answer = inspect(request) if request["job"] == "inspect" else settle(request)
    say(channel, answer)


def say(channel: int, answer: Json) -> None:
    """Send one answer."""
    write_all(json.dumps(answer).encode() + b"\n", channel)


# Output


def spellings(secrets: list[str]) -> list[bytes]:
    """Return the secrets in the forms in which programs print them, longest first."""
    from urllib.parse import quote  # noqa: PLC0415 - as above; only commands need it

    forms = {""}
    for secret in secrets:
        forms |= {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    return sorted((form.encode() for form in forms - {""}), key=len, reverse=True)


def redact(data: bytes, words: list[bytes]) -> bytes:
    """Replace every secret."""
    for word in words:
        data = data.replace(word, b"***")
    return data


def filtered(secrets: list[str], work: Callable[[], object]) -> int:
    """Run ``work`` in a child whose whole output passes the filter; return how it ended, dying the same way."""
    reader, writer = os.pipe()
    # A signal to the process group reaches the child; the filter stays to read its last words.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        become_command(writer)
        os.close(reader)
        work()
        return 0
    os.close(writer)
    status = pump(reader, child, spellings(secrets))
    if os.WIFSIGNALED(status):
        killer = os.WTERMSIG(status)
        if killer != signal.SIGKILL:
            signal.signal(killer, signal.SIG_DFL)
        os.kill(os.getpid(), killer)
    return os.WEXITSTATUS(status)


def become_command(writer: int) -> None:
    """Send what this process and its children print into the filter; react to signals as usual."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)
    os.close(writer)


def pump(reader: int, child: int, words: list[bytes]) -> int:
    """Copy lines until the child has ended and nothing more is there to read; return its status."""
    status, rest, is_open = None, b"", True
    while is_open or status is None:
        if status is None:
            pid, value = os.waitpid(child, 0 if not is_open else os.WNOHANG)
            status = value if pid else None
        patience = 0 if status is not None else 0.05
        if is_open and select.select([reader], [], [], patience)[0]:
            data = os.read(reader, 65536)
            rest += data.replace(b"\r", b"\n")
            is_open = bool(data)
        elif status is not None:
            is_open = False  # a descendant that went away holds the pipe: its words are nobody's
        head, newline, rest = rest.rpartition(b"\n")
        if not is_open:
            head, newline, rest = head + newline + rest, b"", b""
        with suppress(BrokenPipeError):
            write_all(redact(head + newline, words))
    return status


def write_all(data: bytes, descriptor: int = 1) -> None:
    """Write everything; by default to the original standard output."""
    while data:
        data = data[os.write(descriptor, data) :]


# The bench


def bench(channel: int, request: Json) -> None:
    """Run a framework command; every database connection is made known, and noted by the other side, before its use."""
    for name in ("pymysql", "MySQLdb"):
        with suppress(ImportError):
            announce_connections(importlib.import_module(name), channel)
    warnings.simplefilter("ignore")
    helper = importlib.import_module("frappe.utils.bench_helper")
    sys.argv = [str(helper.__file__), "frappe", *request["argv"]]
    helper.main()


def announce_connections(driver: Driver, channel: int) -> None:
    """Wrap the driver's connect()."""
    connect = driver.connect

    def announcing(*args: object, **options: object) -> Connection:
        """Connect, and have it written down, before anybody gets the connection."""
        connection = connect(*args, **options)
        announce(connection, channel)
        return connection

    driver.connect = announcing


def announce(connection: Connection, channel: int) -> None:
    """Tell the session's id and client address, and wait until they are written down."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT HOST FROM information_schema.processlist WHERE ID = CONNECTION_ID()")
        row = cursor.fetchone()
    connection.rollback()
    host = next(iter(row.values())) if isinstance(row, dict) else row[0] if row else ""
    say(channel, {"session": connection.thread_id(), "host": text(host)})
    os.write(1, b"database session %d\n" % connection.thread_id())
    if not (select.select([channel], [], [], ACKNOWLEDGE)[0] and os.read(channel, 1)):
        sys.exit("frappe-bootstrap did not note this database session: stopping before its first statement")


# Looking


def inspect(request: Json) -> Json:
    """Return what both config files and the database say. Nothing is changed."""
    common = read_config("common_site_config.json", ())
    site = request["site"]
    there = os.path.isdir(site)  # noqa: PTH112 - as above
    answer: Json = {"folder": there, "common": common["result"], "config": "missing"}
    config = dict(request["server"])
    if there:
        own = read_config(f"{site}/site_config.json", ("db_name", "db_password"))
        answer["config"], answer["config_error"] = own["result"], own.get("error", "")
        values = own.get("values", {})
        # The common file will say what the request says; only the site's own one wins over it.
        config.update({key: values[key] for key in ("db_host", "db_port", "db_socket") if values.get(key)})
        if own["result"] == "ok":
            answer["db_name"] = values["db_name"]
            user = values.get("db_user") or values["db_name"]
            answer["login"] = attempt(config, user, values["db_password"], values["db_name"], look_into)
    if request.get("root"):
        user, password = request["root"]
        answer["root"] = attempt(config, user, password, None, lambda link: has_database(link, request["db_name"]))
    if request.get("reachable") and "login" not in answer and "root" not in answer:
        answer["server"] = attempt(config, "frappe_bootstrap_probe", "", None, lambda _: {})
    return answer


def read_config(path: str, keys: tuple[str, ...]) -> Json:
    """Read a config file: missing, empty, bad, incomplete and ok are five results."""
    limit = time.monotonic() + BAD_JSON_PATIENCE
    while True:
        answer = read_config_once(path, keys)
        # The framework truncates and rewrites in place: damage may be gone in an instant.
        if answer["result"] not in ("empty", "bad") or time.monotonic() > limit:
            return answer
        time.sleep(0.05)


def read_config_once(path: str, keys: tuple[str, ...]) -> Json:  # noqa: PLR0911 - one return for each result
    """Read it once."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
            content = file.read()
    except FileNotFoundError:
        return {"result": "missing"}
    except (OSError, UnicodeError) as error:
        return {"result": "bad", "error": type(error).__name__}
    if not content.strip():
        return {"result": "empty"}
    try:
        values = json.loads(content)
    except ValueError as error:
        return {"result": "bad", "error": f"line {getattr(error, 'lineno', '?')}"}
    if not isinstance(values, dict):
        return {"result": "bad", "error": "not an object"}
    absent = [key for key in keys if not values.get(key)]
    if absent:
        return {"result": "incomplete", "error": "no " + ", ".join(absent), "values": values}
    return {"result": "ok", "values": values}


def attempt(config: Json, user: str, password: str, database: str | None, work: Callable[[Connection], Json]) -> Json:
    """Log in, let ``work`` add to the answer, and say what the server said if it did not let us."""
    try:
        with closing(login(config, user, password, database)) as connection:
            return {"ok": True, **work(connection)}
    except LookupError as error:
        return {"ok": False, "errno": 0, "error": str(error)}
    except Exception as error:
        if not hasattr(error, "args") or type(error).__module__.split(".")[0] not in (
            "pymysql",
            "MySQLdb",
            "_mysql_exceptions",
            "builtins",
        ):
            raise
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        return {"ok": False, "errno": number, "error": str(error.args[-1] if error.args else error)[:500]}


def login(config: Json, user: str, password: str, database: str | None) -> Connection:
    """Connect with the driver that this environment has, never without limits of time."""
    options: Json = {"user": user, "connect_timeout": CONNECT_TIMEOUT, "charset": "utf8mb4"}
    if config.get("db_socket"):
        options["unix_socket"] = config["db_socket"]
    else:
        options.update(host=config.get("db_host") or "127.0.0.1", port=int(config.get("db_port") or 3306))
    for name, words in (("pymysql", ("password", "database")), ("MySQLdb", ("passwd", "db"))):
        try:
            driver: Driver = importlib.import_module(name)
        except ImportError:
            continue
        options.update({words[0]: password, "read_timeout": READ_TIMEOUT, "write_timeout": READ_TIMEOUT})
        return driver.connect(**options, **({words[1]: database} if database else {}))
    message = "the bench's environment has neither PyMySQL nor mysqlclient"
    raise LookupError(message)


def rows(connection: Connection, query: str, *values: object) -> list[tuple[object, ...]]:
    """Return the rows of one query."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(query, values or None)
        return [tuple(row) for row in cursor.fetchall()]


def text(value: object) -> str:
    """Return a column as text; some servers send bytes."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def look_into(connection: Connection) -> Json:
    """Return what tells a finished site from a half-made one."""
    query = "SELECT TABLE_NAME FROM information_schema.tables WHERE TABLE_SCHEMA = DATABASE()"
    tables = {text(row[0]) for row in rows(connection, query)}
    found: Json = {"tables": len(tables), "defaults": "tabDefaultValue" in tables, "apps": None, "administrator": False}
    if found["defaults"]:
        query = "SELECT defvalue FROM `tabDefaultValue` WHERE parent = %s AND defkey = %s"
        values = rows(connection, query, "__global", "installed_apps")
        with suppress(ValueError):
            found["apps"] = json.loads(text(values[0][0])) if values else None
    if "tabUser" in tables:
        found["administrator"] = bool(rows(connection, "SELECT name FROM `tabUser` WHERE name = %s", "Administrator"))
    return found


def has_database(connection: Connection, name: str) -> Json:
    """Return whether a database of that name exists, or a user of it, whom new-site would drop; as root sees it."""
    names = {text(row[0]).casefold() for row in rows(connection, "SHOW DATABASES")}
    taken = name.casefold() in names
    with suppress(Exception):  # who may not read the table cannot create users either: new-site will say so
        taken = taken or bool(rows(connection, "SELECT 1 FROM mysql.user WHERE User = %s", name))
    return {"database": taken}


# Settling


def settle(request: Json) -> Json:
    """Kill the sessions named by id and client address, and wait until the server has forgotten them."""
    config, logins = dict(request["server"]), [tuple(request["root"])] if request.get("root") else []
    own = read_config(f"{request['site']}/site_config.json", ("db_name", "db_password"))
    values = own.get("values", {})
    config.update({key: values[key] for key in ("db_host", "db_port", "db_socket") if values.get(key)})
    if own["result"] == "ok":
        logins.insert(0, (values.get("db_user") or values["db_name"], values["db_password"]))
    wanted = {(int(number), host) for number, host in request["sessions"]}
    limit, seen = time.monotonic() + request["timeout"], False
    problems: list[str] = []
    refused: list[str] = []
    number = 0
    for user, password in logins:
        answer = attempt(config, user, password, None, lambda link: {"left": end_sessions(link, wanted, limit)})
        if answer["ok"]:
            seen, problems = True, problems + answer["left"]
        else:
            refused.append(answer["error"])
            number = answer["errno"]
    # A login that was refused matters only if no other one could look.
    error = "; ".join(map(str, problems if seen else refused)) or ("" if seen else "no login was possible")
    return {"ok": seen and not problems, "error": error, "errno": 0 if seen else number}


def end_sessions(connection: Connection, wanted: set[tuple[int, str]], limit: float) -> list[str]:
    """Kill what this user may see; return what is still there at the limit."""
    while True:
        query = "SELECT ID, HOST FROM information_schema.processlist WHERE ID <> CONNECTION_ID()"
        left = sorted({(int(text(row[0])), text(row[1])) for row in rows(connection, query)} & wanted)
        if not left or time.monotonic() > limit:
            return [f"session {number} of {host} is still there" for number, host in left]
        for number, _ in left:
            with suppress(Exception):  # it may have ended by itself; the list decides
                rows(connection, f"KILL {number}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
