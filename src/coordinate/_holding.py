"""What is known of a lease without a round trip: whether it is held, until when, and with which token."""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import LeaseInDoubt, LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate._clock import Clock
    from coordinate._cohort import Cohort
    from coordinate._keeper import Keeper
    from coordinate._waiting import Hub
    from coordinate.backend import Backend
    from coordinate.config import Timing
    from coordinate.types import Grant, Loss, Owner


class Shared(NamedTuple):
    """What all leases of one coordinator have in common."""

    backend: Backend
    clock: Clock
    hub: Hub
    keeper: Keeper
    holder: str


class Limits(NamedTuple):
    """Bounds on holding and waiting of one lease.

    Args:
        max_hold: seconds after which a lease is lost whatever happens, so that a wedged holder is replaced.
        progress: seconds within which the holder has to call `Lease.touch` again.
        outage: seconds of unbroken unavailability after which waiting gives up with `BackendUnavailable`.
    """

    max_hold: float = math.inf
    progress: float = math.inf
    outage: float = 60.0


class Holding:
    """The state of one lease object, for its holder, and for the keeper that renews it."""

    __slots__ = (
        "_acquired_at",
        "_callbacks",
        "_ended",
        "_given_back",
        "_grant",
        "_lock",
        "_loss",
        "_owner",
        "_pid",
        "_renewal_callbacks",
        "_touched_at",
        "cohort",
        "kept",
        "limits",
        "name",
        "shared",
        "timing",
    )
    # A process may hold many thousands.

    def __init__(self, shared: Shared, name: str, timing: Timing, limits: Limits = Limits()) -> None:  # noqa: B008
        self.name = name
        self.timing = timing
        self.limits = limits
        self.shared = shared
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._callbacks: tuple[Callable[[Loss], object], ...] = ()
        self._renewal_callbacks: tuple[Callable[[float], object], ...] = ()
        self._grant: Grant | None = None
        self._owner: Owner | None = None
        self._loss: Loss | None = None
        self._ended = False
        """The holder has said that it is over; nothing is a loss any more."""
        self._given_back = False
        self._acquired_at = self._touched_at = 0.0
        self.cohort: Cohort | None = None
        """The leases that are renewed with the present or last grant; the keeper changes it."""
        self.kept = False
        """Whether the keeper renews it; the keeper changes it."""

    @property
    def held(self) -> bool:
        """Return whether the lease may be relied on at this instant; no round trip."""
        return self.alive and self.doubt is None

    @property
    def alive(self) -> bool:
        """Return whether the lease is not lost, given back, or out of time; it may be in `doubt`."""
        return self._why_not() is None

    @property
    def doubt(self) -> str | None:
        """Return why nothing may be begun under the lease at this instant although it is not lost, or None."""
        return None if self._grant is None else self.shared.backend.doubt(self._grant)

    @property
    def lost(self) -> Loss | None:
        """Return why an acquired lease ended before it was given back; None while it is held or was released."""
        return self._loss

    @property
    def token(self) -> int:
        """Return the fencing token of the present or last grant; hand it to everything that can check it.

        Raises:
            LeaseLost: the lease was never acquired.
        """
        return self.grant.token

    @property
    def grant(self) -> Grant:
        """Return the present or last grant.

        Raises:
            LeaseLost: the lease was never acquired.
        """
        if self._grant is None:
            message = f"lease {self.name} was never acquired"
            raise LeaseLost(message)
        return self._grant

    @property
    def owner(self) -> Owner:
        """Return who holds the present or last grant.

        Raises:
            LeaseLost: the lease was never acquired.
        """
        if self._owner is None:
            message = f"lease {self.name} was never acquired"
            raise LeaseLost(message)
        return self._owner

    @property
    def deadline(self) -> float:
        """Return the instant, on CLOCK_BOOTTIME, by which everything the lease protects must have stopped."""
        cohort = self.cohort
        return 0.0 if cohort is None else cohort.deadline

    @property
    def due(self) -> float:
        """Return when the next renewal is due, on the coordinator's clock; infinity where none is."""
        cohort = self.cohort
        return math.inf if cohort is None or not self.kept else cohort.due

    @property
    def remaining(self) -> float:
        """Return the seconds until `deadline`; 0 when the lease is not held."""
        return max(0.0, self.deadline - self.shared.clock.now()) if self.alive else 0.0

    def check(self) -> None:
        """Return if the lease may be relied on at this instant; call it before each effect.

        Raises:
            LeaseLost: it may not; the reason is in ``loss``.
            LeaseInDoubt: it may not now, but perhaps soon: the connection that keeps it is interrupted.
        """
        self.check_alive()
        doubt = self.doubt
        if doubt is not None:
            message = f"lease {self.name} is in doubt: {doubt}"
            raise LeaseInDoubt(message)

    def check_alive(self) -> None:
        """Return if what is under way may go on: as `check`, but bears a doubt, for what can be stopped in time.

        Raises:
            LeaseLost: it may not.
        """
        reason = self._why_not()
        if reason is not None:
            raise LeaseLost(reason, self._loss)

    def _why_not(self) -> str | None:
        if self._pid != os.getpid():
            return f"lease {self.name} belongs to the process that this one was forked from"
        cohort = self.cohort
        if self._grant is None or cohort is None or (self._ended and self._loss is None):
            return f"lease {self.name} is not held"
        if self._loss is not None:
            return f"lease {self.name} was lost: {self._loss.reason.value} ({self._loss.detail})"
        if self.shared.clock.now() >= cohort.stop_at:
            # The keeper may be late or starved; the clock is not.
            return f"lease {self.name} was lost: not renewed in time"
        return None
