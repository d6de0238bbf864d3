"""``etcd://`` and ``etcds://``: leases and markers on an etcd ensemble, through etcd's version 3 API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.hookspecs import hookimpl

if TYPE_CHECKING:
    from coordinate.backend import Backend


@hookimpl
def coordinate_backends() -> list[type[Backend]]:
    """Return the one backend class of this plugin."""
    from coordinate_etcd.backend import EtcdBackend  # noqa: PLC0415 -- paid for by those who use it

    return [EtcdBackend]
