"""The server under a benchmark, as far as all stores have one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Server(NamedTuple):
    """The server that is measured.

    Args:
        port: where it is.
        pid: its process.
        watching: begins to count requests; what it returns ends that and tells how many there were.
    """

    port: int
    pid: int
    watching: Callable[[], Callable[[], float]]
