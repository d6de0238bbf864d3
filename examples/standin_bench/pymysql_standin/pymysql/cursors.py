"""Cursors with PyMySQL's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import err

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from .connections import Connection


class Cursor:
    """Rows as tuples, all fetched when the statement ran."""

    def __init__(self, connection: Connection) -> None:
        """Belong to a connection."""
        self.connection: Connection | None = connection
        self.description: Any = None
        self.rowcount = -1
        self.rownumber = 0
        self.lastrowid = 0
        self.arraysize = 1
        self._rows: list[Any] = []

    def execute(self, query: str, args: object = None) -> int:
        """Run one statement and return its row count."""
        if self.connection is None:
            raise err.ProgrammingError(0, "Cursor closed")
        rows, self.description, self.rowcount, self.lastrowid = self.connection.execute(query, args)
        self._rows = self._shape(rows)
        self.rownumber = 0
        return self.rowcount

    def executemany(self, query: str, args: Iterable[object]) -> int:
        """Run one statement for each set of arguments."""
        self.rowcount = sum(self.execute(query, each) for each in args)
        return self.rowcount

    def _shape(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        return rows

    def fetchone(self) -> Any:  # noqa: ANN401 - a row may be anything
        """Return the next row or None."""
        if self.rownumber >= len(self._rows):
            return None
        self.rownumber += 1
        return self._rows[self.rownumber - 1]

    def fetchmany(self, size: int | None = None) -> tuple[Any, ...]:
        """Return the next rows."""
        start = self.rownumber
        self.rownumber = min(len(self._rows), start + (size or self.arraysize))
        return tuple(self._rows[start : self.rownumber])

    def fetchall(self) -> tuple[Any, ...]:
        """Return all rows that are left."""
        return self.fetchmany(len(self._rows) or 1)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""
        return iter(self.fetchall())

    def close(self) -> None:
        """Let go of the connection."""
        self.connection = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class DictCursor(Cursor):
    """Rows as dicts."""

    def _shape(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        names = [column[0] for column in self.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows]


SSCursor = Cursor
SSDictCursor = DictCursor
