"""Translation of the small part of MariaDB's SQL that the stand-in and its checkers use into sqlite's."""

from __future__ import annotations

import re
from typing import Any

_FLAGS = re.IGNORECASE | re.DOTALL
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, _FLAGS), replacement)
    for pattern, replacement in (
        (r"^\s*RENAME\s+TABLE\s+(\S+|`[^`]+`)\s+TO\s+(.+)$", r"ALTER TABLE \1 RENAME TO \2"),
        (r"\)\s*(?:ENGINE|(?:DEFAULT\s+)?CHAR(?:ACTER\s+)?SET|COLLATE)\b[^()]*$", ")"),
        (r"\s+(?:CHARACTER\s+SET|COLLATE)\s+\w+", ""),
        (
            r"\bbigint\s+(?:unsigned\s+)?(?:not\s+null\s+)?auto_increment\s+primary\s+key",
            "INTEGER PRIMARY KEY",
        ),
        (r"\bINT(?:EGER)?\s+(?:not\s+null\s+)?auto_increment\s+primary\s+key", "INTEGER PRIMARY KEY"),
        (r"\bUNSIGNED\b", ""),
        (r"\bINSERT\s+IGNORE\b", "INSERT OR IGNORE"),
        (r"\bON\s+DUPLICATE\s+KEY\s+UPDATE\b", "ON CONFLICT DO UPDATE SET"),
        (r"\s+(?:FOR\s+UPDATE|LOCK\s+IN\s+SHARE\s+MODE)(?:\s+NOWAIT|\s+SKIP\s+LOCKED)?\s*$", ""),
        (r"\bNOW\s*\((\d*)\)", "now_()"),
        (r"\bUTC_TIMESTAMP\s*\((\d*)\)", "now_()"),
        (r"\bCURRENT_TIMESTAMP\s*\(\d*\)", "CURRENT_TIMESTAMP"),
    )
)
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b|.*\bFOR\s+UPDATE\b", _FLAGS)
_DEFINES = re.compile(r"\s*(CREATE|DROP|ALTER|RENAME|TRUNCATE)\b", _FLAGS)
_DUPLICATE = re.compile(r"ON\s+DUPLICATE\s+KEY\s+UPDATE", _FLAGS)
_LITERAL = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


def unescape(text: str) -> str:
    """Return what a MariaDB string literal means (between its quotes)."""
    text = re.sub(r"''", "'", text)
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text, flags=re.DOTALL)


def _sqlite_literal(match: re.Match[str]) -> str:
    return "'" + unescape(match[1]).replace("'", "''") + "'"


def _with_excluded(sql: str) -> str:
    head, duplicate, tail = re.split(f"({_DUPLICATE.pattern})", sql, maxsplit=1, flags=_FLAGS)
    return head + duplicate + re.sub(r"\bVALUES\s*\(\s*(`?\w+`?)\s*\)", r"excluded.\1", tail, flags=_FLAGS)


def translate(sql: str, args: object = None) -> tuple[str, Any]:
    """Return the sqlite text and its parameters; as in PyMySQL, ``%`` means something only with arguments."""
    if _DUPLICATE.search(sql):
        sql = _with_excluded(sql)
    sql = _LITERAL.sub(_sqlite_literal, sql)
    for pattern, replacement in _REWRITES:
        sql = pattern.sub(replacement, sql)
    if args is None:
        return sql, ()
    if isinstance(args, dict):
        return re.sub(r"%\((\w+)\)s", r":\1", sql).replace("%%", "%"), args
    values = tuple(args) if isinstance(args, (list, tuple)) else (args,)
    return sql.replace("%s", "?").replace("%%", "%"), tuple(_plain(value) for value in values)


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float, bytes, str)):
        return value
    return str(value)


def writes(sql: str) -> bool:
    """Return whether this statement opens a writing transaction."""
    return _WRITES.match(sql) is not None


def defines(sql: str) -> bool:
    """Return whether this statement changes the schema, and so commits what came before it."""
    return _DEFINES.match(sql) is not None
