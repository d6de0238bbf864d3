"""Acting on the database, under a lease: ending sessions, writing the record, making a database, undoing that.

Every connection that changes something is announced, and noted by the other side, before its first statement.
"""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress

from shim_looking import DENIED, overrides, read_config, read_record, user_of
from shim_servers import TABLE, announce, attempt, rows, run, server_of, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim_servers import Connection, Json, MariaDB, Postgres

FENCE = "fence"
SHORT = 65535
"""What fits into a TEXT of MariaDB. The patches of a bench with three large apps are three times as long."""
PAUSE = 0.05


def site_logins(request: Json) -> tuple[Json, list[tuple[str, str]], Json]:
    """Return the server's address, the site's logins in the order in which they are tried, and its config."""
    values = read_config(f"{request['site']}/site_config.json", ("db_name", "db_password")).get("values", {})
    config = {**request["server"], **overrides(values)}
    if not (values.get("db_name") and values.get("db_password")):
        return config, [], values
    passwords = dict.fromkeys([values["db_password"], request.get("password") or values["db_password"]])
    return config, [(user_of(values), password) for password in passwords], values


# Settling


def settle(request: Json) -> Json:
    """Kill the sessions named by id and client address, and wait until the server has forgotten them."""
    config, logins, _ = site_logins(request)
    logins += [tuple(request["root"])] if request.get("root") else []
    wanted = {(int(number), host) for number, host in request["sessions"]}
    limit, seen = time.monotonic() + request["timeout"], False
    problems: list[str] = []
    refused: list[str] = []
    number = 0
    server = server_of(config)
    for user, password in logins:
        answer = attempt(
            config, user, password, None, lambda link: {"left": end_sessions(server, link, limit, wanted=wanted)}
        )
        if answer["ok"]:
            seen, problems = True, problems + answer["left"]
        else:
            refused.append(answer["error"])
            number = answer["errno"]
    # A login that was refused matters only if no other one could look.
    error = "; ".join(map(str, problems if seen else refused)) or ("" if seen else "no login was possible")
    return {"ok": seen and not problems, "error": error, "errno": 0 if seen else number}


def end_sessions(
    server: MariaDB | Postgres,
    connection: Connection,
    limit: float,
    *,
    wanted: set[tuple[int, str]] | None = None,
    user: str = "",
) -> list[str]:
    """Kill named sessions, or all of a user, as far as they may be seen; return what is still there at the limit."""
    server.commit_each(connection)
    while True:
        query, values = (server.others + server.of_user, (user,)) if user else (server.others, ())
        there = {(int(text(row[0])), text(row[1])) for row in rows(connection, query, *values)}
        left = sorted(there if wanted is None else there & wanted)
        if not left or time.monotonic() > limit:
            return [f"session {number} of {host} is still there" for number, host in left]
        for number, _ in left:
            with suppress(Exception):  # it may have ended by itself; the list decides
                run(connection, server.kill, number)
        time.sleep(PAUSE)


# The record


def write_record(request: Json, channel: int) -> Json:
    """Write or delete one row of the record with the site's own login."""
    config, logins, values = site_logins(request)
    server, answer = server_of(config), {"ok": False, "errno": 0, "error": "the site has no usable site_config.json"}

    def write(connection: Connection) -> Json:
        """Change it, unless somebody with a higher token was here."""
        announce(server, connection, channel)
        prepare_table(server, connection)
        if len(json.dumps(request["value"])) > SHORT:
            server.make_room(connection)
        floor = raise_fence(connection, request["token"], force=request.get("force", False))
        if floor is None:
            put_row(connection, request["name"], request["value"], request["token"])
            connection.commit()
        return {"stale": floor or 0}

    for user, password in logins:
        answer = attempt(config, user, password, values["db_name"], write)
        if answer["ok"] or answer["errno"] not in DENIED:
            break
    return answer


def prepare_table(server: MariaDB | Postgres, connection: Connection) -> None:
    """Create the table and its fence unless they are there. Its name is such that the framework leaves it alone."""
    columns = f"name VARCHAR(64) NOT NULL PRIMARY KEY, value {server.long_text}, token BIGINT NOT NULL"
    run(connection, f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns})")
    insert, unless_there = server.ignore
    run(connection, f"{insert} INTO {TABLE} (name, value, token) VALUES (%s, %s, %s){unless_there}", FENCE, "null", 0)
    connection.commit()


def raise_fence(connection: Connection, token: int, *, force: bool = False) -> int | None:
    """Begin a change: keep every other one out until it is committed. Return a higher token that was here, if any."""
    # The table's own, not the row's: a row that was deleted would have forgotten its token.
    [(stored,)] = rows(connection, f"SELECT token FROM {TABLE} WHERE name = %s FOR UPDATE", FENCE)  # noqa: S608
    floor = int(text(stored) or 0)
    if floor > token and not force:
        connection.rollback()
        return floor
    run(connection, f"UPDATE {TABLE} SET token = %s WHERE name = %s", token, FENCE)  # noqa: S608
    return None


def put_row(connection: Connection, name: str, value: object, token: int) -> None:
    """Replace a row; no value: remove it."""
    run(connection, f"DELETE FROM {TABLE} WHERE name = %s", name)  # noqa: S608
    if value is not None:
        insert = f"INSERT INTO {TABLE} (name, value, token) VALUES (%s, %s, %s)"  # noqa: S608
        run(connection, insert, name, json.dumps(value), token)


# Creation


def as_root(request: Json, channel: int, work: Callable[[MariaDB | Postgres, Connection, Json], Json]) -> Json:
    """Log in as root, announced, each statement committing itself."""
    config = {**request["server"], **overrides(site_logins(request)[2])}
    server, (user, password) = server_of(config), request["root"]

    def announced(connection: Connection) -> Json:
        """Do it."""
        announce(server, connection, channel)
        server.commit_each(connection)
        return work(server, connection, config)

    return attempt(config, user, password, None, announced)


def prepare(request: Json, channel: int) -> Json:
    """Make database, record and user of a new site; go on with what an earlier attempt of the same creation made.

    Nothing is dropped. What is there and not proved to be of this creation stays as it is: ``foreign`` says what.
    """
    return as_root(request, channel, lambda server, root, config: prepare_as(server, root, config, request, channel))


def prepare_as(server: MariaDB | Postgres, root: Connection, config: Json, request: Json, channel: int) -> Json:
    """Do it, logged in."""
    name = request["creation"]["database"]
    there = name.casefold() in {text(row[0]).casefold() for row in rows(root, server.databases)}
    if request["fresh"] and (there or rows(root, server.users, name)):
        return {"foreign": f"a database or user {name} appeared in this moment: another site's"}
    if not there:
        run(root, server.create_database.format(name=name))
    user, password = request["root"]
    with closing(server.connect(config, user, password, name)) as inside:
        announce(server, inside, channel)
        foreign = claim(server, inside, request)
        if foreign:
            return {"foreign": foreign}
    left = end_sessions(server, root, time.monotonic() + request["timeout"], user=name)
    if left:
        return {"foreign": f"the site's own user is still at work: {left[0]}"}
    server.make_user(root, name, request["site_password"], rds=bool(request.get("rds")))
    with closing(server.connect(config, user, password, name)) as inside:
        server.own(inside, name)
        inside.commit()
    return {}


def claim(server: MariaDB | Postgres, connection: Connection, request: Json) -> str:
    """Write the creation into the database, unless it is somebody else's; return why it is not ours."""
    creation, force = request["creation"], request.get("force", False)
    tables = {text(row[0]) for row in rows(connection, server.tables)}
    record = dict(read_record(connection)) if TABLE in tables else {}
    foreign = not_ours(record, tables, creation["nonce"])
    if foreign and not force:
        return foreign
    prepare_table(server, connection)
    floor = raise_fence(connection, creation["token"], force=force)
    if floor is not None:
        return f"a higher token {floor} has written to the record in database {creation['database']}"
    # Under the fence: of two that found it empty the second one sees the first one's.
    foreign = not_ours(dict(read_record(connection)), tables, creation["nonce"])
    if foreign and not force:
        connection.rollback()
        return foreign
    put_row(connection, "creation", creation, creation["token"])
    connection.commit()
    return ""


def not_ours(record: dict[str, str], tables: set[str], nonce: str) -> str:
    """Return why a database is not proved to be made by the creation with that nonce; an empty one is nobody's."""
    if "creation" not in record:
        return "it has tables and no record of a creation" if tables - {TABLE} else ""
    try:
        made_by = json.loads(record["creation"])
    except ValueError:
        return "its record of a creation cannot be read"
    if made_by.get("done"):
        return f"its record says that it is the finished site {made_by.get('site')}"
    return "" if made_by.get("nonce") == nonce else f"its record says that site {made_by.get('site')} made it"


def discard(request: Json, channel: int) -> Json:
    """Drop database and user of a half-made site that the creation's nonce proves to be ours, within a time limit.

    Only for a framework that cannot fill a database that is there (v14).
    """

    def work(server: MariaDB | Postgres, root: Connection, config: Json) -> Json:
        """Look once more, end the site's own sessions, drop."""
        name, (user, password) = request["creation"]["database"], request["root"]
        limit = time.monotonic() + request["timeout"]
        if name.casefold() in {text(row[0]).casefold() for row in rows(root, server.databases)}:
            with closing(server.connect(config, user, password, name)) as inside:
                tables = {text(row[0]) for row in rows(inside, server.tables)}
                record = dict(read_record(inside)) if TABLE in tables else {}
            foreign = not_ours(record, tables, request["creation"]["nonce"])
            if foreign and not request.get("force"):
                return {"foreign": foreign}
        while True:
            left = end_sessions(server, root, limit, user=name)
            try:
                for statement in (*server.drop_database, *server.drop_user):
                    run(root, statement.format(name=name))
            except Exception as error:  # noqa: BLE001 - any driver's
                # Somebody else's transaction may be in the way; it ends, or our time does.
                if time.monotonic() > limit:
                    return {"foreign": f"{error.args[-1] if error.args else error} {' '.join(left)}"}
                time.sleep(PAUSE)
            else:
                return {}

    return as_root(request, channel, work)


def note_creation(server: MariaDB | Postgres, connection: Connection, creation: Json) -> None:
    """Write the creation into the database that new-site has just made, at the first login to it."""
    query = "SELECT current_database()" if server.quote == '"' else "SELECT DATABASE()"
    [(name,)] = rows(connection, query)
    connection.rollback()
    if text(name) != creation["database"]:
        return
    prepare_table(server, connection)
    if raise_fence(connection, creation["token"]) is None:
        put_row(connection, "creation", creation, creation["token"])
    connection.commit()
