"""``file://``: leases on native file locks, markers by claim and seal, shared through a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.hookspecs import hookimpl

if TYPE_CHECKING:
    from coordinate.backend import Backend


@hookimpl
def coordinate_backends() -> list[type[Backend]]:
    """Return the one backend class of this plugin."""
    from coordinate_filelock.backend import FileBackend  # noqa: PLC0415 -- paid for by those who use it

    return [FileBackend]
