"""The DB-API errors, with PyMySQL's names and tree; ``args`` are (MySQL error number, message)."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


class MySQLError(Exception):
    """Root of everything below."""


class Warning(builtins.Warning, MySQLError):  # noqa: A001 - the name is fixed by DB-API
    """Never raised here."""


class Error(MySQLError):
    """Root of all errors."""


class InterfaceError(Error):
    """Use of a closed connection or cursor."""


class DatabaseError(Error):
    """Root of what the server says."""


class DataError(DatabaseError):
    """A value does not fit."""


class OperationalError(DatabaseError):
    """Connection, rights, locks, and whatever the server cannot do."""


class IntegrityError(DatabaseError):
    """A key is violated."""


class InternalError(DatabaseError):
    """Never raised here."""


class ProgrammingError(DatabaseError):
    """Bad SQL or a missing table."""


class NotSupportedError(DatabaseError):
    """Never raised here."""


_FROM_SQLITE: tuple[tuple[str, type[DatabaseError], int], ...] = (
    ("no such table", ProgrammingError, 1146),
    ("no such column", OperationalError, 1054),
    ("has no column named", OperationalError, 1054),
    ("already exists", OperationalError, 1050),
    ("duplicate column", OperationalError, 1060),
    ("UNIQUE constraint", IntegrityError, 1062),
    ("NOT NULL constraint", IntegrityError, 1048),
    ("locked", OperationalError, 1205),
    ("unknown database", ProgrammingError, 1146),
    ("disk I/O", OperationalError, 2013),
)


def from_sqlite(error: sqlite3.Error) -> DatabaseError:
    """Return the error that a MariaDB server would have sent for this one."""
    text = str(error)
    for needle, kind, number in _FROM_SQLITE:
        if needle in text:
            return kind(number, text)
    return ProgrammingError(1064, f"You have an error in your SQL syntax: {text}")
