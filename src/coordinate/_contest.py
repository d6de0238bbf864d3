"""One wait for a lease: in line at the store, looking when it can help, giving the turn on when it ends."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Self

from coordinate.errors import AcquireTimeout, BackendUnavailable
from coordinate.types import Grant, Granted, Held, Quarantined, Topic

if TYPE_CHECKING:
    from coordinate._waiting import Wait
    from coordinate.backend import Backend
    from coordinate.lease import Lease
    from coordinate.types import AcquireAnswer, LeaseRecord

log = logging.getLogger("coordinate")

LOOK_AFTER = 0.002
"""Seconds past a holder's expiry at which a waiter looks: earlier would be in vain."""
QUARANTINE_LOOK = 5.0
"""Seconds after which a waiter looks again at a store that is quarantined. Nobody tells when that ends sooner than was
said: the server's clock may be set right, or the wait be counted anew. A holder's end is told, or was promised."""
_RETRY_UNAVAILABLE = 0.25
"""Seconds between attempts while the store gives no usable answer."""


class Contest:
    """Waiting for a lease, step by step, so that the same wait can end for another reason as well.

    Example:
        >>> from coordinate import connect
        >>> with connect("memory://") as coordinator:
        ...     with coordinator.lease("contested").contest(timeout=5) as contest:
        ...         contest.attempt()
        True
    """

    def __init__(self, lease: Lease, timeout: float, floor: int, also: tuple[tuple[Backend, Topic], ...]) -> None:
        self._lease = lease
        self._shared = lease.shared
        self._owner = lease.begin()
        self.floor = floor
        self.unled = False
        """Nobody has ever led what the lease is for, as another store knows."""
        self.not_before = 0.0
        """No attempt makes sense before this instant on the coordinator's clock."""
        self._also = also
        self._ends_at = self._shared.clock.now() + timeout
        self._timeout = timeout
        self._wait: Wait | None = None
        self._queued = False
        self._look_at = 0.0
        self._answer: AcquireAnswer | None = None
        self._error: BackendUnavailable | None = None
        self._dark_since: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line; a turn that was already given to us goes to the next one."""
        if not self._lease.alive:
            with contextlib.suppress(BackendUnavailable):
                self._withdraw()
        if self._wait is not None:
            self._wait.__exit__()
            self._shared.keeper.expect_no_more()

    def _withdraw(self) -> None:
        backend, lease = self._shared.backend, self._lease
        if self._error is not None:
            # The last request had no answer: the store may have granted it to us after all.
            backend.release(Grant(lease.name, 0, self._owner.nonce, lease.timing.ttl))
        if self._queued:
            backend.withdraw(lease.name, self._owner)

    def attempt(self) -> bool:
        """Ask for the lease once; True if it is ours now. A store that does not answer is noted only."""
        backend = self._shared.backend
        queue = self._wait.queue(backend) if self._wait is not None else None
        now = self._shared.clock.now()
        # Also when the answer is lost: the store may have put us in line.
        self._queued = self._queued or queue is not None
        try:
            self._answer = self._lease.ask(self._owner, self.floor, queue, unled=self.unled)
        except BackendUnavailable as error:
            self._note_outage(error, now)
            return False
        self._error = self._dark_since = None
        match self._answer:
            case Granted():
                return True
            case Held(retry_after=seconds):
                self._look_at = now + seconds + LOOK_AFTER
            case Quarantined(retry_after=seconds):
                self._look_at = now + min(seconds + LOOK_AFTER, QUARANTINE_LOOK)
        if self._wait is None or queue is None:
            # Not in line yet: open the channel first, then ask again, so that no release falls in between.
            self._look_at = now if self._listen() else self._look_at
        return False

    def _note_outage(self, error: BackendUnavailable, now: float) -> None:
        if self._error is None:
            log.warning("store unavailable, trying again: %s", error)
        self._error = error
        self._dark_since = now if self._dark_since is None else self._dark_since
        self._look_at = now + _RETRY_UNAVAILABLE
        if now - self._dark_since >= self._lease.limits.outage:
            raise error

    def _listen(self) -> bool:
        """Open the wait if it is not open; True if that makes another attempt worth while at once."""
        if self._wait is not None:
            return False
        topic = Topic("lease", self._lease.name, self._owner.nonce)
        self._wait = self._shared.hub.wait((self._shared.backend, topic), *self._also)
        self._shared.keeper.expect()
        self._wait.__enter__()
        return True

    def sleep(self) -> None:
        """Wait until another attempt makes sense, or something else that this contest is about has changed.

        Raises:
            AcquireTimeout: time is up and somebody else holds the lease.
            BackendUnavailable: time is up and the store gives no usable answer.
            Interrupted: a signal asked this process to stop.
        """
        self._shared.hub.check_interrupt()
        if self._shared.clock.now() >= self._ends_at:
            raise self._out_of_time()
        self._listen()
        if self._wait is not None:
            self._wait.sleep(min(max(self._look_at, self.not_before), self._ends_at))

    def _out_of_time(self) -> AcquireTimeout | BackendUnavailable:
        if self._error is not None:
            return self._error
        reason = self.obstacle or "held by somebody else"
        return AcquireTimeout(f"lease {self._lease.name} not acquired within {self._timeout:g} s: {reason}")

    @property
    def obstacle(self) -> str:
        """Return what the last attempt found in the way; "": nothing, or the store gave no usable answer."""
        if self._error is not None:
            return ""
        match self._answer:
            case Quarantined():
                return "the store is quarantined after a failover or restart"
            case Held():
                return f"held by {'somebody else' if self.holder is None else self.holder.owner}"
        return ""

    @property
    def holder(self) -> LeaseRecord | None:
        """Return who held the lease at the last attempt; None: nobody, or the store did not say."""
        return self._answer.record if isinstance(self._answer, Held) else None
