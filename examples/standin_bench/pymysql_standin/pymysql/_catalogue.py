"""information_schema and mysql.user: a copy of the server's catalogue, made for one query."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._store import Store
    from .connections import Connection, Result

_TABLES = """
ATTACH ':memory:' AS information_schema;
ATTACH ':memory:' AS mysql;
CREATE TABLE information_schema.processlist (ID INTEGER, USER, HOST, DB, COMMAND, TIME INTEGER, STATE, INFO);
CREATE TABLE information_schema.schemata (SCHEMA_NAME);
CREATE TABLE information_schema.tables (TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE);
"""


def catalogue(connection: Connection, text: str, values: Any) -> Result:  # noqa: ANN401 - sqlite takes many
    """Answer one query from the catalogue, as far as this user may see it."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        copy.executescript(_TABLES)
        copy.create_function("connection_id", 0, connection.thread_id)
        copy.create_function("database", 0, lambda: connection.db)
        copy.create_function("user", 0, lambda: f"{connection.user}@{connection.store.client}")
        _fill(copy, connection)
        cursor = copy.execute(text, values)
        rows = cursor.fetchall()
        return rows, cursor.description, len(rows), 0


def _fill(copy: sqlite3.Connection, connection: Connection) -> None:
    processes = "INSERT INTO information_schema.processlist VALUES (?,?,?,?,?,?,?,?)"
    copy.executemany(processes, connection.process_rows())
    for name in connection.visible_databases():
        copy.execute("INSERT INTO information_schema.schemata VALUES (?)", (name,))
        rows = [(name, table, "BASE TABLE", "InnoDB") for table in _table_names(connection.store, name)]
        copy.executemany("INSERT INTO information_schema.tables VALUES (?,?,?,?)", rows)
    if "*" in connection.allowed:
        copy.execute("CREATE TABLE mysql.user (User, Host)")
        pairs = [(user, host) for user, hosts in connection.store.users().items() for host in hosts]
        copy.executemany("INSERT INTO mysql.user VALUES (?,?)", pairs)


def _table_names(store: Store, database: str) -> list[str]:
    """Return the tables of any database, read with a connection of its own."""
    file = sqlite3.connect(f"file:{store.path(database)}?mode=ro", uri=True, timeout=30)
    try:
        return [row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    except sqlite3.OperationalError:
        return []
    finally:
        file.close()
