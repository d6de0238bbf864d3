"""One thread per coordinator renews all of its leases, batched, and notices when time has run out.

`Keeper.tick` is all of its judgement and takes no time of its own, so that tests can drive it with a fake clock; the
thread only calls it. It starts with the first lease and ends some seconds after the last.
"""

from __future__ import annotations

import heapq
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

log = logging.getLogger("coordinate")

LONGEST_NAP = 1.0
"""Seconds; the kernel's waits do not count suspend."""
LINGER = 10
"""Naps without a lease after which the thread ends: starting one for each of many short leases would cost more."""
_TOGETHER = 0.1
"""Seconds: leases whose next looks differ by no more have one entry."""
_STALE = 64
"""Entries that are not worth sweeping."""
PAUSE_AFTER_ERROR = 0.05
"""Seconds: what is still due after an error is tried again, but not in a busy loop."""


class Keeper:
    """Keeps the leases of one coordinator alive."""

    def __init__(self, backend: Backend, clock: Clock, *, threaded: bool = True) -> None:
        self._backend = backend
        self._clock = clock
        self._threaded = threaded
        self._turns: dict[Lease, int] = {}
        """Which entry of the agenda is the valid one of each lease."""
        self._agenda: list[tuple[float, int, Sequence[Lease]]] = []
        """A heap of when to look at which leases; those that have gone or come again since are skipped."""
        self._entries = 0
        """Leases in the agenda, skipped ones included."""
        self._count = 0
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf
        self._closed = False
        self._expected = 0
        """Waits that may end with a lease at any moment."""

    def expect(self) -> None:
        """Have the thread ready: somebody waits for a lease, and starting a thread takes longer than a hand-over."""
        with self._changed:
            self._expected += 1
            self._start()

    def expect_no_more(self) -> None:
        """Take one `expect` back."""
        with self._changed:
            self._expected -= 1

    def add(self, lease: Lease) -> None:
        """Keep a lease from now on."""
        with self._changed:
            self._enter(lease.look_at, [lease])
            if not self._start() and lease.look_at < self._wakes_at:
                self._changed.notify()

    def _start(self) -> bool:
        """Start the thread if there should be one and is none; True if that was so."""
        if not self._threaded or self._thread is not None or self._closed:
            return False
        self._thread = threading.Thread(target=self._run, name="coordinate-keeper", daemon=True)
        self._thread.start()
        return True

    def _enter(self, look_at: float, leases: Sequence[Lease]) -> None:
        self._count += 1
        for lease in leases:
            self._turns[lease] = self._count
        heapq.heappush(self._agenda, (look_at, self._count, leases))
        self._entries += len(leases)
        if self._entries > 2 * len(self._turns) + _STALE:
            self._sweep()

    def _sweep(self) -> None:
        """Forget stale entries: a program that acquires and releases in a loop leaves one behind each time."""
        valid = [(at, turn, self._valid(turn, leases)) for at, turn, leases in self._agenda]
        self._agenda = [entry for entry in valid if entry[2]]
        self._entries = sum(len(leases) for _, _, leases in self._agenda)
        heapq.heapify(self._agenda)

    def _valid(self, turn: int, leases: Sequence[Lease]) -> list[Lease]:
        return [lease for lease in leases if self._turns.get(lease) == turn]

    def discard(self, lease: Lease) -> None:
        """Forget a lease. Idempotent."""
        with self._changed:
            self._turns.pop(lease, None)

    def tick(self) -> None:
        """Renew what is due, declare lost what is overdue."""
        now = self._clock.now()
        leases = self._take_due(now)
        try:
            for lease in leases:
                if lease.bounded:
                    lease.watch_the_clock(now)
            due = [lease for lease in leases if lease.soon_due(now) and lease.alive]
            if due:
                self._renew(due)
                now = self._clock.now()
            for lease in leases:
                if lease.look_at <= now:
                    lease.watch_the_clock(now)
        finally:
            self._put_back(leases)

    def _take_due(self, now: float) -> list[Lease]:
        """Return the leases that have to be looked at, and those that soon have to; they stay known.

        Leases that were acquired one after another so come to share their requests.
        """
        leases: list[Lease] = []
        with self._changed:
            if not self._agenda or self._agenda[0][0] > now:
                return leases
            while self._agenda and self._agenda[0][0] <= now + LONGEST_NAP:
                _, turn, together = heapq.heappop(self._agenda)
                self._entries -= len(together)
                leases += self._valid(turn, together)
        return leases

    def _put_back(self, leases: Sequence[Lease]) -> None:
        """Enter what was looked at again: what has to be looked at at nearly the same time, together."""
        with self._changed:
            # One that was given back or lost meanwhile is not entered; one that was acquired anew is once more.
            times = [(lease.look_at, lease) for lease in leases if lease in self._turns]
            first = min((at for at, _ in times), default=0.0)
            together = [lease for at, lease in times if at <= first + _TOGETHER]
            if together:
                self._enter(first, together)
            for at, lease in times:
                if at > first + _TOGETHER:
                    self._enter(at, [lease])

    def _renew(self, leases: Sequence[Lease]) -> None:
        # The grants are taken once: a lease may be given back and acquired anew while the request is under way.
        grants = [lease.grant for lease in leases]
        sent = self._clock.now()
        try:
            answers = self._backend.renew(grants)
        except CoordinateError as error:
            # A store is not supposed to raise here; the keeper must outlive one that does.
            answers = [Unknown(str(error)) for _ in grants]
        unknown = []
        for lease, grant, answer in zip(leases, grants, answers, strict=True):
            if not lease.still(grant):
                continue
            if isinstance(answer, Renewed):
                lease.extend(sent, answer.ttl)
            elif isinstance(answer, Gone):
                lease.lose(answer.reason, "the store says so")
            else:
                lease.postpone(sent)
                unknown.append((lease.name, answer.why))
        if unknown:
            # One line for all: a server that is down must not fill the log with every lease's name.
            log.warning("%d leases not renewed, %s first, trying again: %s", len(unknown), *unknown[0])

    def close(self) -> None:
        """Lose what is still held: nothing is renewed any more."""
        with self._changed:
            self._closed = True
            leases = list(self._turns)
            self._changed.notify()
        if leases:
            log.warning("closed with %d leases held, %s first: left to expire", len(leases), leases[0].name)
        for lease in leases:
            lease.lose(LossReason.CLOSED, "coordinator closed", logging.DEBUG)

    def _run(self) -> None:
        pid, idle = os.getpid(), 0
        while True:
            shortest = 0.0
            try:
                self.tick()
            except Exception:
                # A lease that changes under the keeper's hands, or a callback that raises, must not end renewal.
                log.exception("the keeper goes on after an error")
                shortest = PAUSE_AFTER_ERROR
            with self._changed:
                idle = 0 if self._turns or self._expected else idle + 1
                if os.getpid() != pid or self._closed or idle > LINGER:
                    self._thread = None
                    return
                # Asked again, under the lock: a lease may have been added while the tick was under way.
                next_look = self._agenda[0][0] if self._agenda else math.inf
                nap = min(max(shortest, next_look - self._clock.now()), LONGEST_NAP)
                self._wakes_at = self._clock.now() + nap
                self._changed.wait(nap)
                self._wakes_at = -math.inf
