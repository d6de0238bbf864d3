"""Showing that a step is under way although it says nothing.

A leader whose lease is in another store cannot see ours. All it has is the marker store that both use: it waits until
nothing there has changed for the length of our lease. So an attempt that is silent changes its record now and then.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Pulse:
    """Calls ``beat`` every ``period`` seconds from a thread of its own, for as long as the with block lasts.

    When the block has been left, no call is under way any more.
    """

    def __init__(self, beat: Callable[[], object], period: float) -> None:
        self._beat = beat
        self._period = period
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coordinate-pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._period):
            self._beat()
