"""Leases that are renewed together, and the times that they have in common.

What a renewal of thousands costs is decided here: an answer that is the same for all of them is noted once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinate.config import Timing
    from coordinate.lease import Lease
    from coordinate.types import Grant

DRIFT = 0.001
"""Part of a ttl that clocks of client and server may drift apart while it runs."""


class Cohort:
    """One or more leases with one deadline. Who belongs to it changes under the keeper's lock only.

    Args:
        timing: of all of its leases.
        sent: when the request was sent that granted or renewed them last.
        ttl: what was granted.
    """

    __slots__ = ("changed", "deadline", "due", "grants", "listened", "members", "size", "stop_at", "timing")

    def __init__(self, timing: Timing, sent: float, ttl: float) -> None:
        self.timing = timing
        self.members: list[Lease] = []
        """Those of them that have left meanwhile included, until `muster`."""
        self.size = 0
        """Leases that belong to it."""
        self.changed = False
        self.grants: tuple[Grant, ...] = ()
        """Of the members, in their order; the same object for as long as nobody comes or leaves."""
        self.listened = False
        """Whether a member may want to be told of renewals."""
        self.extend(sent, ttl)

    def extend(self, sent: float, ttl: float) -> None:
        """Note a good renewal of all members."""
        self.deadline = sent + ttl * (1 - DRIFT)
        self.stop_at = min(sent + self.timing.renew_deadline, self.deadline)
        self.due = sent + self.timing.retry_period

    def postpone(self, sent: float) -> None:
        """Note that a renewal had no usable answer; it is tried again soon."""
        self.due = sent + self.timing.retry_period / 2

    def twin(self) -> Cohort:
        """Return one with the same times and no members."""
        twin = Cohort(self.timing, 0.0, 0.0)
        twin.deadline, twin.stop_at, twin.due, twin.listened = self.deadline, self.stop_at, self.due, self.listened
        return twin

    def join(self, lease: Lease) -> None:
        """Take a lease in, out of the cohort that it was in before."""
        lease.cohort = self
        self.members.append(lease)
        self.size += 1
        self.grants = ()
        # Asked after it has joined: whoever registers a callback does so before looking which cohort to tell.
        self.listened = self.listened or lease.listening

    def leave(self) -> None:
        """Note that a member has left."""
        self.size -= 1
        self.changed = True

    def has(self, lease: Lease) -> bool:
        """Return whether a lease belongs to it: it may be kept with another grant, in another cohort."""
        return lease.kept and lease.cohort is self

    def muster(self) -> bool:
        """Bring members and grants up to date; False where nobody is left."""
        if self.changed:
            self.members = [lease for lease in self.members if self.has(lease)]
            self.grants, self.changed = (), False
        if not self.grants:
            self.grants = tuple([lease.grant for lease in self.members])
        return bool(self.members)

    @property
    def bounded(self) -> bool:
        """Return whether it can end although it is renewed: such a lease stays alone."""
        return len(self.members) == 1 and self.members[0].bounded

    @property
    def look_at(self) -> float:
        """Return when the keeper has to look at it next."""
        at = min(self.due, self.stop_at)
        return min(at, self.members[0].ends_at) if self.bounded else at

    def soon_due(self, now: float) -> bool:
        """Return whether a renewal is due within half a period: together with others it costs little."""
        return self.due <= now + self.timing.retry_period / 2 and now < self.stop_at
