"""``zookeeper://``: leases as a queue of ephemeral nodes, markers by transactions, on a ZooKeeper ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.hookspecs import hookimpl

if TYPE_CHECKING:
    from coordinate.backend import Backend


@hookimpl
def coordinate_backends() -> list[type[Backend]]:
    """Return the one backend class of this plugin."""
    from coordinate_zookeeper.backend import ZooKeeperBackend  # noqa: PLC0415 -- paid for by those who use it

    return [ZooKeeperBackend]
