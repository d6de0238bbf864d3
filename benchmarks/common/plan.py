"""How much is measured."""

from __future__ import annotations

import os
from typing import NamedTuple


class Plan(NamedTuple):
    """Sizes of all workloads.

    Args:
        rounds: interleaved repetitions, of which the best counts.
        seconds: length of one round of pairs.
        waiters: processes that wait for one name or marker.
        idle: seconds for which blocked waiters are watched.
        ttl: of a lease whose holder is killed.
        phases: instants of the ttl at which it is killed.
        leases: how many one process holds.
        watched: seconds for which they are watched, at a ttl of 10 s.
        starts: repetitions of each program start.
        peers: whether the other libraries take part where each costs many seconds.
    """

    rounds: int = 5
    seconds: float = 1.0
    waiters: int = 64
    idle: float = 5.0
    ttl: float = 3.0
    phases: int = 12
    leases: int = 10_000
    watched: float = 15.0
    starts: int = 20
    peers: bool = True

    @property
    def processors(self) -> tuple[int, int]:
        """Return the first and the last processor that we may use."""
        usable = sorted(os.sched_getaffinity(0))
        return usable[0], usable[-1]


FULL = Plan()
QUICK = Plan(
    rounds=2,
    seconds=0.2,
    waiters=16,
    idle=1.5,
    ttl=1.5,
    phases=4,
    leases=1000,
    watched=6.0,
    starts=3,
    peers=False,
)
"""Shows in less than a minute that everything runs, and every gate; its times mean nothing."""
