"""``sqlite://`` for coordinate."""

from coordinate.backend import Backend
from coordinate.hookspecs import hookimpl


@hookimpl
def coordinate_backends() -> list[type[Backend]]:
    """Return the stores of this plugin."""
    from coordinate_sqlite.backend import SqliteBackend  # noqa: PLC0415 -- loaded when it is needed

    return [SqliteBackend]
