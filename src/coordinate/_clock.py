"""Time, injected so that tests can own it.

Deadlines live on CLOCK_BOOTTIME where there is one: it counts suspend, which CLOCK_MONOTONIC does not, and no
operator can set it. The wall clock appears in records for people only.
"""

from __future__ import annotations

import time
from typing import Protocol

_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the core may ask about time."""

    def now(self) -> float:
        """Return seconds on a clock that never goes back and counts suspend; its zero means nothing."""

    def wall(self) -> float:
        """Return seconds since the epoch, as this host believes; for people and for coarse ages only."""


class SystemClock:
    """The host's own clocks."""

    def now(self) -> float:
        """Return seconds since boot, suspend included."""
        return time.clock_gettime(_ID)

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()


SYSTEM = SystemClock()
