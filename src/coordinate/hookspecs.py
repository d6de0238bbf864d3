"""The one hook of the plugin system.

A plugin is a module with this function, named by an entry point of the group ``coordinate.backends`` whose name is
the URL scheme (the part before ``+``)::

    from coordinate.hookspecs import hookimpl

    @hookimpl
    def coordinate_backends():
        return [MyBackend]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.backend import Backend

PROJECT = "coordinate"
GROUP = "coordinate.backends"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def coordinate_backends() -> Sequence[type[Backend]]:  # type: ignore[empty-body]
    """Return the backend classes of this plugin."""
