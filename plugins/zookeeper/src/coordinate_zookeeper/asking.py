"""Requests for `coordinate_zookeeper.session.Session.ask` that many operations make, one for each path of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.protocol.states import WatchedEvent

    from coordinate_zookeeper.session import Call


def exists(path: str, told: Callable[[WatchedEvent], None] | None = None) -> Call:
    """Ask for the state of a node; None: there is none. ``told`` is called at its next change."""
    return lambda driver: driver.exists_async(path, told)


def get(path: str, told: Callable[[WatchedEvent], None] | None = None) -> Call:
    """Ask for data and state of a node. ``told`` is called at its next change, unless there is none."""
    return lambda driver: driver.get_async(path, told)


def children(path: str) -> Call:
    """Ask for the names of a node's children."""
    return lambda driver: driver.get_children_async(path)


def sync(path: str) -> Call:
    """Ask the leader of the ensemble: what is asked next on this session is answered as it knows it now, or later."""
    return lambda driver: driver.sync_async(path)


def delete(path: str) -> Call:
    """Ask for the removal of a node, whatever its version."""
    return lambda driver: driver.delete_async(path)


def create(path: str) -> Call:
    """Ask for an empty node that stays."""
    return lambda driver: driver.create_async(path)


def enter(path: str, data: bytes) -> Call:
    """Ask for an ephemeral node with the next number; the answer is its path and state."""
    return lambda driver: driver.create_async(path, data, ephemeral=True, sequence=True, include_data=True)
