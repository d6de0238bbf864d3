"""A driver shaped like PyMySQL for a bench without a database server; see ``knobs.py`` for its switches."""

from . import connections, cursors, err
from .connections import Connection
from .err import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    MySQLError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,  # noqa: A004 - the name is fixed by DB-API
)

connect = Connect = Connection
apilevel = "2.0"
paramstyle = "pyformat"
threadsafety = 1
VERSION = (1, 2, 0, "standin")
__version__ = "1.2.0+standin"

__all__ = [
    "Connect",
    "Connection",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "MySQLError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "apilevel",
    "connect",
    "connections",
    "cursors",
    "err",
    "paramstyle",
    "threadsafety",
]
