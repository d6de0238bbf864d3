"""Looking: what the config files and the database say. Nothing is changed."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

from shim_servers import TABLE, attempt, rows, server_of, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim_servers import Connection, Json, MariaDB, Postgres

BAD_JSON_PATIENCE = 1.0
DENIED = (1044, 1045, 1698)


def inspect(request: Json) -> Json:
    """Return what both config files and the database say."""
    common = read_config("common_site_config.json", ())
    site = request["site"]
    there = os.path.isdir(site)  # noqa: PTH112 - importing pathlib would delay every start
    answer: Json = {"folder": there, "common": common["result"], "config": "missing"}
    config: Json = dict(request["server"])
    if there:
        own = read_config(f"{site}/site_config.json", ("db_name", "db_password"))
        answer["config"], answer["config_error"] = own["result"], own.get("error", "")
        config.update(overrides(own.get("values", {})))
        if own["result"] == "ok":
            answer["db_name"] = own["values"]["db_name"]
            answer["login"], answer["rotated"] = look(config, own["values"], request.get("password") or "")
    if request.get("root"):
        user, password = request["root"]
        answer["root"] = attempt(config, user, password, None, lambda link: has_database(link, config, request))
    if request.get("reachable") and "login" not in answer and "root" not in answer:
        answer["server"] = attempt(config, "frappe_bootstrap_probe", "", None, lambda _: {})
    return answer


def overrides(values: Json) -> Json:
    """Return what of the site's own config wins over the request; the common file will say what the request says."""
    return {key: values[key] for key in ("db_type", "db_host", "db_port", "db_socket") if values.get(key)}


def user_of(values: Json) -> str:
    """Return the site's database user."""
    return str(values.get("db_user") or values["db_name"])


def look(config: Json, values: Json, other: str) -> tuple[Json, bool]:
    """Log in with the config's password, then with the environment's; return what was seen, and whether by the other.

    Where neither is let in, the answer is that to the config's.
    """
    user, name = user_of(values), values["db_name"]
    first = attempt(config, user, values["db_password"], name, lambda link: look_into(link, server_of(config)))
    if first["ok"] or first["errno"] not in DENIED or other in ("", values["db_password"]):
        return first, False
    second = attempt(config, user, other, name, lambda link: look_into(link, server_of(config)))
    return (second, True) if second["ok"] else (first, False)


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


def look_into(connection: Connection, server: MariaDB | Postgres) -> Json:
    """Return what tells a finished site from a half-made one, and our own record."""
    tables, quote = {text(row[0]) for row in rows(connection, server.tables)}, server.quote
    found: Json = {"tables": len(tables - {TABLE}), "defaults": "tabDefaultValue" in tables}
    found.update(apps=None, administrator=False)
    if found["defaults"]:
        query = f"SELECT defvalue FROM {quote}tabDefaultValue{quote} WHERE parent = %s AND defkey = %s"  # noqa: S608
        values = rows(connection, query, "__global", "installed_apps")
        with suppress(ValueError):
            found["apps"] = json.loads(text(values[0][0])) if values else None
    if "tabUser" in tables:
        query = f"SELECT name FROM {quote}tabUser{quote} WHERE name = %s"  # noqa: S608
        found["administrator"] = bool(rows(connection, query, "Administrator"))
    if TABLE in tables:
        found["record"] = read_record(connection)
    return found


def read_record(connection: Connection) -> list[tuple[str, str]]:
    """Return names and values of the record's rows."""
    return [(text(name), text(value)) for name, value in rows(connection, f"SELECT name, value FROM {TABLE}")]  # noqa: S608


def has_database(connection: Connection, config: Json, request: Json) -> Json:
    """Return whether a database of that name exists, or a user of it, whom new-site would drop; as root sees it."""
    server, name = server_of(config), request["db_name"]
    names = {text(row[0]).casefold() for row in rows(connection, server.databases)}
    taken = name.casefold() in names
    with suppress(Exception):  # who may not read the table cannot create users either: new-site will say so
        taken = taken or bool(rows(connection, server.users, name))
    return {"database": taken}
