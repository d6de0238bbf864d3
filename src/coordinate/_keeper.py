"""One thread per coordinator renews all of its leases, batched, and notices when time has run out.

`Keeper.tick` is all of its judgement and takes no time of its own, so that tests can drive it with a fake clock; the
thread only calls it. It starts with the first lease and ends with the last.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from typing import TYPE_CHECKING

from coordinate.errors import CoordinateError
from coordinate.types import Gone, LossReason, Renewed, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate._clock import Clock
    from coordinate.backend import Backend
    from coordinate.lease import Lease
    from coordinate.types import RenewAnswer

log = logging.getLogger("coordinate")

LONGEST_NAP = 1.0
"""Seconds; the kernel's waits do not count suspend."""
PAUSE_AFTER_ERROR = 0.05
"""Seconds: what is still due after an error is tried again, but not in a busy loop."""


class Keeper:
    """Keeps the leases of one coordinator alive."""

    def __init__(self, backend: Backend, clock: Clock, *, threaded: bool = True) -> None:
        self._backend = backend
        self._clock = clock
        self._threaded = threaded
        self._leases: set[Lease] = set()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def add(self, lease: Lease) -> None:
        """Keep a lease from now on."""
        with self._changed:
            self._leases.add(lease)
            if self._threaded and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coordinate-keeper", daemon=True)
                self._thread.start()
            elif lease.due < self._wakes_at:
                self._changed.notify()

    def discard(self, lease: Lease) -> None:
        """Forget a lease. Idempotent."""
        with self._changed:
            self._leases.discard(lease)

    def tick(self) -> None:
        """Renew what is due, declare lost what is overdue."""
        with self._changed:
            leases = list(self._leases)
        now = self._clock.now()
        for lease in leases:
            lease.watch_the_clock(now)
        due = [lease for lease in leases if lease.due <= now and lease.held]
        if due:
            self._renew(due)
            now = self._clock.now()
            for lease in due:
                lease.watch_the_clock(now)

    def _renew(self, leases: Sequence[Lease]) -> None:
        # The grants are taken once: a lease may be given back and acquired anew while the request is under way.
        grants = [lease.grant for lease in leases]
        sent = self._clock.now()
        try:
            answers = self._backend.renew(grants)
        except CoordinateError as error:
            # A store is not supposed to raise here; the keeper must outlive one that does.
            answers = [Unknown(str(error)) for _ in grants]
        for lease, grant, answer in zip(leases, grants, answers, strict=True):
            if lease.still(grant):
                self._tell(lease, answer, sent)

    def _tell(self, lease: Lease, answer: RenewAnswer, sent: float) -> None:
        match answer:
            case Renewed(ttl=ttl):
                lease.extend(sent, ttl)
            case Gone(reason=reason):
                lease.lose(reason, "the store says so")
            case Unknown(why=why):
                log.warning("lease %s not renewed, trying again: %s", lease.name, why)
                lease.postpone(sent)

    def close(self) -> None:
        """Lose what is still held: nothing is renewed any more."""
        with self._changed:
            leases = list(self._leases)
        for lease in leases:
            lease.lose(LossReason.CLOSED, "coordinator closed")

    def _run(self) -> None:
        pid = os.getpid()
        while True:
            shortest = 0.0
            try:
                self.tick()
            except Exception:
                # A lease that changes under the keeper's hands, or a callback that raises, must not end renewal.
                log.exception("the keeper goes on after an error")
                shortest = PAUSE_AFTER_ERROR
            with self._changed:
                if os.getpid() != pid or not self._leases:
                    self._thread = None
                    return
                # Asked again, under the lock: a lease may have been added while the tick was under way.
                next_due = min(lease.due for lease in self._leases)
                nap = min(max(shortest, next_due - self._clock.now()), LONGEST_NAP)
                self._wakes_at = self._clock.now() + nap
                self._changed.wait(nap)
                self._wakes_at = -math.inf
