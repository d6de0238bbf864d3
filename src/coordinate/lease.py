"""Leases: exclusive, time-bounded, renewed ownership of a name, with a fencing token.

What is promised: of all lease objects on one name, at most one passes `Lease.check` at any instant, for any pause,
kill or partition of the processes. What is not: that the work a holder has already sent to another server is undone,
or that work which never looks at `check`, `lost` or the token stops by itself. See ``docs/explanation/guarantees.md``.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from typing import TYPE_CHECKING, Literal, Self

from coordinate import _identity
from coordinate._cohort import Cohort
from coordinate._contest import Contest
from coordinate._holding import Holding
from coordinate.errors import BackendUnavailable, ConfigError, Contended, LeaseLost
from coordinate.types import Grant, Granted, Loss, LossReason

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from coordinate.backend import Backend, Watch
    from coordinate.types import AcquireAnswer, LeaseRecord, Owner, Topic

log = logging.getLogger("coordinate")


class Lease(Holding):
    """One contender for one name. Made by `Coordinator.lease`; not for sharing across a fork.

    Each `acquire` is a new owner with a new nonce, so two lease objects of one process exclude each other.

    Example:
        >>> from coordinate import connect
        >>> with connect("memory://") as coordinator, coordinator.lease("nightly-report") as lease:
        ...     lease.check()
        ...     lease.token > 0
        True
    """

    __slots__ = ("__weakref__",)

    # What the holder does

    def touch(self) -> None:
        """Report progress; needed within ``progress`` seconds where that limit is set."""
        with self._lock:
            self._touched_at = self.shared.clock.now()

    def holder(self) -> LeaseRecord | None:
        """Ask the store who holds the name.

        Raises:
            BackendUnavailable: no usable answer.
        """
        return self.shared.backend.holder(self.name)

    def descriptors(self) -> tuple[int, ...]:
        """Return open descriptors that are the lease itself (file locks), for the guardian of a child."""
        return self.shared.backend.descriptors(self.grant)

    def on_lost(self, callback: Callable[[Loss], object]) -> None:
        """Call ``callback(loss)`` once, from a thread of its own, when the lease is lost; at once if it is."""
        with self._lock:
            self._callbacks += (callback,)
            loss = self._loss
        if loss is not None:
            self._call_back(loss)

    def on_renewed(self, callback: Callable[[float], object]) -> None:
        """Call ``callback(deadline)`` after each renewal, from the keeper's thread: it must not block.

        An error that it raises is logged, and the lease goes on.
        """
        with self._lock:
            self._renewal_callbacks += (callback,)
            # After the callback is there: see `Cohort.join`.
            if self.cohort is not None:
                self.cohort.listened = True

    def off_renewed(self, callback: Callable[[float], object]) -> None:
        """Stop calling what `on_renewed` was given."""
        with self._lock:
            self._renewal_callbacks = tuple(each for each in self._renewal_callbacks if each != callback)

    # Getting and giving back

    def acquire(self, timeout: float = 3600.0, *, floor: int = 0, blocking: bool = True) -> Lease:
        """Wait for the lease and return it; it never returns without it.

        Args:
            timeout: longest wait in seconds; ``math.inf`` waits for ever.
            floor: the token will be greater than this.
            blocking: False: never stand in line; only a store that gives no usable answer is borne until the end.

        Raises:
            AcquireTimeout: somebody else held it all the time.
            Contended: somebody else holds it, or the store is quarantined, and we were told not to wait for that.
            BackendUnavailable: the store gave no usable answer at the end, or not for ``outage`` seconds.
            Interrupted: a signal asked this process to stop.
        """
        contest = self.contest(timeout, floor=floor)
        with contest:
            while not contest.attempt():
                if not blocking and contest.obstacle:
                    message = f"lease {self.name} is not to be had now: {contest.obstacle}"
                    raise Contended(message, contest.holder)
                contest.sleep()
        return self

    def try_acquire(self, *, floor: int = 0) -> bool:
        """Ask once. False means that the store confirmed another holder (or a quarantine), nothing else.

        Raises:
            BackendUnavailable: no usable answer; if the store granted it all the same, it lapses after its ttl.
        """
        owner = self.begin()
        return isinstance(self.ask(owner, floor, None), Granted)

    def contest(self, timeout: float, *, floor: int = 0, also: tuple[tuple[Backend, Topic], ...] = ()) -> Contest:
        """Return a wait for this lease that can be combined with other topics; see `Contest`."""
        return Contest(self, timeout, floor, also)

    def begin(self) -> Owner:
        """Become a new owner. Refused while the lease is held: there is no implicit re-entrancy."""
        with self._lock:
            if self._pid != os.getpid():
                message = f"lease {self.name} belongs to another process: make a new one after a fork"
                raise LeaseLost(message)
            if self.alive:
                message = f"lease {self.name} is held by this very object already"
                raise ConfigError(message)
            self._forget()
            self._owner = _identity.mint(self.shared.holder)
            return self._owner

    def _forget(self) -> None:
        self.shared.keeper.discard(self)
        self._grant = self._loss = None
        self._ended = self._given_back = False

    def ask(self, owner: Owner, floor: int, queue: Watch | None, *, unled: bool = False) -> AcquireAnswer:
        """Ask the store once, and take what it grants."""
        sent = self.shared.clock.now()
        backend = self.shared.backend
        answer = backend.acquire(self.name, owner, self.timing.ttl, floor=floor, queue=queue, unled=unled)
        if isinstance(answer, Granted):
            self._take(answer.grant, sent - answer.age)
        return answer

    def _take(self, grant: Grant, sent: float) -> None:
        timing = self.timing
        if grant.ttl < timing.ttl:
            # A server may grant less than was asked for; the relations have to hold for what it granted.
            timing = timing.of(grant.ttl, timeout=timing.timeout)
        with self._lock:
            self.timing = timing
            self._grant = grant
            self._loss = None
            self._acquired_at = self._touched_at = sent
        self.shared.keeper.add(self, Cohort(timing, sent, grant.ttl))

    def release(self) -> bool:
        """Give the lease back, so that the next one gets it at once. False: it was not ours any more.

        Idempotent. Work that the lease protects must have stopped before.

        Raises:
            BackendUnavailable: no usable answer; call again, or leave it to expire.
        """
        with self._lock:
            if self._grant is None or self._given_back or self._pid != os.getpid():
                return False
            grant = self._grant
            self._ended = True
            self.shared.keeper.discard(self)
        released = self.shared.backend.release(grant)
        with self._lock:
            self._given_back = True
        return released

    def abandon(self) -> None:
        """Stop renewing and let the lease lapse: others get it after its ttl. `check` fails from now on."""
        with self._lock:
            self.lose(LossReason.CLOSED, "abandoned")
            self._given_back = True

    # What the keeper asks and tells

    @property
    def bounded(self) -> bool:
        """Return whether it can end although it is renewed."""
        return self.limits.max_hold < math.inf or self.limits.progress < math.inf

    @property
    def ends_at(self) -> float:
        """Return when it ends although it is renewed."""
        return min(self._acquired_at + self.limits.max_hold, self._touched_at + self.limits.progress)

    @property
    def listening(self) -> bool:
        """Return whether somebody wants to be told of renewals."""
        return bool(self._renewal_callbacks)

    def extend(self, sent: float, ttl: float) -> None:
        """Note a renewal whose request was sent at ``sent``; ignored once the lease is lost."""
        self.shared.keeper.extend(self, sent, ttl)

    def tell_renewed(self) -> None:
        """Call those who want to be told of a renewal."""
        with self._lock:
            if self._ended or self._loss is not None:
                return
            deadline, callbacks = self.deadline, self._renewal_callbacks
        for callback in callbacks:
            try:
                callback(deadline)
            except Exception:
                # The others, and the leases that are renewed with this one, go on.
                log.exception("a callback of lease %s after its renewal failed", self.name)

    def watch_the_clock(self, now: float) -> None:
        """Declare the lease lost if its time, or its holder's, has run out."""
        with self._lock:
            if self._grant is None or self._ended or self._loss is not None:
                return
            if self.cohort is not None and now >= self.cohort.stop_at:
                self.lose(LossReason.EXPIRED, f"not renewed within {self.timing.renew_deadline:g} s")
            elif now - self._acquired_at >= self.limits.max_hold:
                self.lose(LossReason.MAX_HOLD, f"held for {self.limits.max_hold:g} s")
            elif now - self._touched_at >= self.limits.progress:
                self.lose(LossReason.STALLED, f"no progress for {self.limits.progress:g} s")

    def lose(
        self, reason: LossReason, detail: str, level: int = logging.WARNING, *, grant: Grant | None = None
    ) -> None:
        """Freeze the reason of a loss, once, log it at ``level``, and tell those who asked.

        Given the ``grant`` that was lost, a later one is left alone.
        """
        with self._lock:
            if self._grant is None or self._ended or self._loss is not None:
                return
            if grant is not None and grant is not self._grant:
                return
            self._loss = loss = Loss(reason, detail)
            self.shared.keeper.discard(self)
        log.log(level, "lease %s lost: %s (%s)", self.name, reason.value, detail)
        self._call_back(loss)

    def _call_back(self, loss: Loss) -> None:
        with self._lock:
            callbacks, self._callbacks = self._callbacks, ()
        if callbacks:
            # A callback may block as long as it likes: renewing the other leases must go on.
            threading.Thread(
                target=lambda: [callback(loss) for callback in callbacks], name="coordinate-lost", daemon=True
            ).start()

    # As a context manager

    def __enter__(self) -> Self:
        if self._grant is None or self._ended:
            self.acquire()
        # Held already, by acquire or try_acquire: then a loss since shows here, not as a second, silent wait.
        self.check_alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Give the lease back. A loss raises `LeaseLost` here, but never in place of the body's own error."""
        reason, loss = self._why_not(), self._loss
        try:
            self.release()
        except BackendUnavailable as unavailable:
            log.warning("lease %s left to expire: %s", self.name, unavailable)
        if reason is not None and error is None:
            raise LeaseLost(reason, loss)
        return False

    def __repr__(self) -> str:
        state = "held" if self.held else "not held"
        return f"<Lease {self.name} {state}>"
