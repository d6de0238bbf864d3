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
from coordinate.types import Gone, LossReason, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate._clock import Clock
    from coordinate._cohort import Cohort
    from coordinate.backend import Backend
    from coordinate.lease import Lease
    from coordinate.types import Grant, RenewAnswer

log = logging.getLogger("coordinate")

LONGEST_NAP = 1.0
"""Seconds; the kernel's waits do not count suspend."""
LINGER = 10
"""Naps without a lease after which the thread ends: starting one for each of many short leases would cost more."""
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
        self._agenda: list[tuple[float, int, Cohort]] = []
        """A heap of when to look at which leases; cohorts that nobody belongs to any more are skipped."""
        self._looked_at: list[Cohort] = []
        """Those that a tick has taken off the agenda."""
        self._count = 0
        """Entries that were ever made: those of one instant are looked at in turn."""
        self._kept = 0
        self._stale = 0
        """Cohorts in the agenda that nobody belongs to."""
        self._last: tuple[tuple[tuple[Grant, ...], ...], tuple[Grant, ...]] = ((), ())
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
            if not self._expected and not self._kept:
                # It sleeps without end while somebody waits, and has to count the seconds until its own end now.
                self._changed.notify()

    def add(self, lease: Lease, cohort: Cohort) -> None:
        """Keep a lease from now on, in a cohort of its own."""
        with self._changed:
            lease.kept = True
            cohort.join(lease)
            self._kept += 1
            look_at = self._enter(cohort)
            if not self._start() and look_at < self._wakes_at:
                self._changed.notify()

    def _start(self) -> bool:
        """Start the thread if there should be one and is none; True if that was so."""
        if not self._threaded or self._thread is not None or self._closed:
            return False
        self._thread = threading.Thread(target=self._run, name="coordinate-keeper", daemon=True)
        self._thread.start()
        return True

    def _enter(self, cohort: Cohort) -> float:
        self._count += 1
        look_at = cohort.look_at
        heapq.heappush(self._agenda, (look_at, self._count, cohort))
        return look_at

    def discard(self, lease: Lease) -> None:
        """Forget a lease. Idempotent."""
        with self._changed:
            cohort = lease.cohort
            if cohort is None or not lease.kept:
                return
            lease.kept = False
            self._kept -= 1
            cohort.leave()
            if cohort.size:
                # Whatever is renewed from now on: the time of this one stands still.
                lease.cohort = cohort.twin()
                return
            self._stale += 1
            if self._stale > len(self._agenda) // 2 + _STALE:
                self._sweep()

    def _sweep(self) -> None:
        """Forget stale entries: a program that acquires and releases in a loop leaves one behind each time."""
        self._agenda = [entry for entry in self._agenda if entry[2].size]
        heapq.heapify(self._agenda)
        self._stale = 0

    def extend(self, lease: Lease, sent: float, ttl: float) -> None:
        """Note a renewal that the holder made itself; ignored once its time was over."""
        with self._changed:
            cohort = lease.cohort
            if cohort is None or not lease.kept or self._clock.now() >= cohort.stop_at:
                return
            if cohort.size > 1:
                alone = cohort.twin()
                self._move([lease], cohort, alone)
                cohort = alone
                self._enter(cohort)
            cohort.extend(sent, min(ttl, cohort.timing.ttl))
        lease.tell_renewed()

    def tick(self) -> None:
        """Renew what is due, declare lost what is overdue."""
        now = self._clock.now()
        cohorts = self._take_due(now)
        try:
            for cohort in cohorts:
                if cohort.bounded:
                    cohort.members[0].watch_the_clock(now)
            due = [cohort for cohort in cohorts if cohort.soon_due(now)]
            if due:
                self._renew(due)
                now = self._clock.now()
            for cohort in self._looked_at:
                if cohort.size and cohort.look_at <= now:
                    for lease in list(cohort.members):
                        if cohort.has(lease):
                            lease.watch_the_clock(now)
        finally:
            self._put_back()

    def _take_due(self, now: float) -> list[Cohort]:
        """Return the cohorts that have to be looked at, and those that soon have to.

        Leases that were acquired one after another so come to share their requests.
        """
        with self._changed:
            if self._agenda and self._agenda[0][0] <= now:
                while self._agenda and self._agenda[0][0] <= now + LONGEST_NAP:
                    cohort = heapq.heappop(self._agenda)[2]
                    if cohort.size:
                        self._looked_at.append(cohort)
                    else:
                        self._stale -= 1
            return list(self._looked_at)

    def _put_back(self) -> None:
        with self._changed:
            looked_at, self._looked_at = self._looked_at, []
            for cohort in looked_at:
                # What was given back or lost meanwhile is gone; what was acquired anew has a cohort of its own.
                if cohort.size:
                    self._enter(cohort)

    def _renew(self, cohorts: Sequence[Cohort]) -> None:
        with self._changed:
            # Taken once: a lease may be given back and acquired anew while the request is under way.
            asked = [(cohort, cohort.members, cohort.grants) for cohort in cohorts if cohort.muster()]
        grants = self._joined(tuple([grants for _, _, grants in asked]))
        sent = self._clock.now()
        try:
            answers = self._backend.renew(grants) if grants else []
        except CoordinateError as error:
            # A store is not supposed to raise here; the keeper must outlive one that does.
            answers = [Unknown(str(error))] * len(grants)
        unknown: list[tuple[str, str]] = []
        start = 0
        for cohort, members, granted in asked:
            mine = answers[start : start + len(granted)]
            start += len(granted)
            for part, answer in self._parted(cohort, members, mine):
                self._take(part, answer, sent)
                if isinstance(answer, Unknown):
                    unknown += [(lease.name, answer.why) for lease in part.members if part.has(lease)]
        self._merge()
        if unknown:
            # One line for all: a server that is down must not fill the log with every lease's name.
            log.warning("%d leases not renewed, %s first, trying again: %s", len(unknown), *unknown[0])

    def _joined(self, parts: tuple[tuple[Grant, ...], ...]) -> tuple[Grant, ...]:
        """Return all grants; the same object as the last time if they are the same, so that stores may prepare."""
        if len(parts) == 1:
            return parts[0]
        known, joined = self._last
        if len(known) != len(parts) or any(old is not new for old, new in zip(known, parts, strict=True)):
            joined = tuple([grant for part in parts for grant in part])
            self._last = parts, joined
        return joined

    def _parted(
        self, cohort: Cohort, members: Sequence[Lease], answers: Sequence[RenewAnswer]
    ) -> list[tuple[Cohort, RenewAnswer]]:
        """Return the cohort with its answer; where the answers differ, a cohort for each of them."""
        if len(set(answers)) == 1:
            return [(cohort, answers[0])]
        leases: dict[RenewAnswer, list[Lease]] = {}
        for lease, answer in zip(members, answers, strict=True):
            leases.setdefault(answer, []).append(lease)
        most = max(leases, key=lambda answer: len(leases[answer]))
        parts = [(cohort, most)]
        with self._changed:
            for answer, others in leases.items():
                if answer is not most:
                    part = cohort.twin()
                    parts.append((part, answer))
                    self._looked_at.append(part)
                    self._move(others, cohort, part)
        return parts

    @staticmethod
    def _move(leases: Sequence[Lease], source: Cohort, target: Cohort) -> None:
        for lease in leases:
            if source.has(lease):
                source.leave()
                target.join(lease)

    def _take(self, cohort: Cohort, answer: RenewAnswer, sent: float) -> None:
        if isinstance(answer, Gone):
            with self._changed:
                lost = [(lease, lease.grant) for lease in cohort.members if cohort.has(lease)]
            for lease, grant in lost:
                lease.lose(answer.reason, "the store says so", grant=grant)
        elif isinstance(answer, Unknown):
            cohort.postpone(sent)
        elif self._clock.now() < cohort.stop_at:
            # A reply that comes after the work was told to stop does not bring a lease back.
            cohort.extend(sent, min(answer.ttl, cohort.timing.ttl))
            if cohort.listened:
                for lease in list(cohort.members):
                    if cohort.has(lease) and lease.listening:
                        lease.tell_renewed()

    def _merge(self) -> None:
        """Put together what was renewed together and will be due together."""
        alike: dict[tuple[object, float, float, float], Cohort] = {}
        with self._changed:
            for cohort in sorted(self._looked_at, key=lambda cohort: -cohort.size):
                if cohort.bounded or not cohort.size:
                    continue
                first = alike.setdefault((cohort.timing, cohort.deadline, cohort.stop_at, cohort.due), cohort)
                if first is not cohort:
                    self._move(cohort.members, cohort, first)

    def close(self) -> None:
        """Lose what is still held: nothing is renewed any more."""
        with self._changed:
            self._closed = True
            cohorts = [*self._looked_at, *(cohort for _, _, cohort in self._agenda)]
            leases = [lease for cohort in cohorts for lease in cohort.members if cohort.has(lease)]
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
                idle = 0 if self._kept or self._expected else idle + 1
                if os.getpid() != pid or self._closed or idle > LINGER:
                    self._thread = None
                    return
                # Asked again, under the lock: a lease may have been added while the tick was under way.
                next_look = self._agenda[0][0] if self._agenda else math.inf
                nap = min(max(shortest, next_look - self._clock.now()), LONGEST_NAP)
                if self._expected and not self._kept:
                    # Nothing can run out, and whoever adds a lease says so.
                    nap = math.inf
                self._wakes_at = self._clock.now() + nap
                self._changed.wait(nap if nap < math.inf else None)
                self._wakes_at = -math.inf
