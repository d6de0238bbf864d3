"""The values that travel between the layers and into the stores: frozen records, no behaviour.

The records that are stored (`Owner`, `LeaseRecord`, `Claim`, `MarkerRecord`) are also the wire format: JSON objects
with these field names, encoded and decoded by `coordinate._wire` only. A field may be added with a default; a
changed meaning needs a new ``v``.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

import msgspec


class Capability(enum.Enum):
    """What a store guarantees beyond the port's minimum. Declared by the backend, checked both ways by the kit."""

    EXPIRY = "expiry"
    """A holder that is alive but hung loses its lease after the ttl."""
    WAKE = "wake"
    """A release wakes a waiter; without it waiters look at the poll interval only."""
    FLOOR = "floor"
    """Tokens never repeat for a name, also after a restart of the store's server or a reboot of this host."""
    CROSS_PROCESS = "cross-process"
    """Other processes of this host take part."""
    CROSS_HOST = "cross-host"
    """Other hosts take part."""
    FAILOVER = "failover"
    """A failover or restart that loses the newest leases lets nobody new in while a holder may still believe."""
    DURABLE_MARKERS = "durable-markers"
    """An acknowledged ``done`` survives a crash of the store's server."""


class Finding(msgspec.Struct, frozen=True):
    """A setting of a store that breaks a promise.

    Args:
        setting: which one, where, and its value.
        breaks: what goes wrong because of it, and when.
        fix: what to do.
        concerns: what the store has to be used for to be concerned: ``leases``, ``markers``, or both.
    """

    setting: str
    breaks: str
    fix: str
    concerns: tuple[str, ...] = ("leases", "markers")


class LossReason(enum.Enum):
    """Why a lease ended before it was given back."""

    EXPIRED = "expired"
    TAKEN = "taken"
    BROKEN = "broken"
    CLOSED = "closed"
    MAX_HOLD = "over max_hold"
    STALLED = "no progress"
    FORKED = "forked"


class Loss(msgspec.Struct, frozen=True):
    """The frozen reason of a loss."""

    reason: LossReason
    detail: str = ""


class Owner(msgspec.Struct, frozen=True):
    """Who asks for a lease: one `acquire()` call of one process. The nonce alone decides identity."""

    nonce: str
    host: str = ""
    pid: int = 0
    pid_namespace: str = ""
    boot_id: str = ""
    started: int = 0
    """Start time of the process in clock ticks since boot (a pid alone is reused)."""
    label: str = ""

    def __str__(self) -> str:
        return f"{self.label or self.host}[{self.pid}]"


class Grant(msgspec.Struct, frozen=True):
    """Proof of a granted lease: what renew and release are called with."""

    name: str
    token: int
    nonce: str
    ttl: float
    """Granted length in seconds; may differ from what was asked for."""


class LeaseRecord(msgspec.Struct, frozen=True):
    """What a store knows about a lease that is held."""

    name: str
    token: int
    owner: Owner
    ttl: float
    remaining: float = 0.0
    """Seconds until expiry at the moment of reading; 0 where a store has no expiry. Not stored."""
    v: int = 1


class Granted(msgspec.Struct, frozen=True):
    """Answer to acquire: the lease is ours, counted from before the request was sent."""

    grant: Grant
    age: float = 0.0
    """Seconds before the call of ``acquire`` at which the request was sent, if that was done ahead of it."""


class Held(msgspec.Struct, frozen=True):
    """Answer to acquire: somebody else holds it. Only ever a fact that the store confirmed."""

    record: LeaseRecord | None
    retry_after: float
    """Seconds after which the present holder's grant has expired unless renewed; a waiter looks again then."""


class Quarantined(msgspec.Struct, frozen=True):
    """Answer to acquire: the store may have lost leases that are still believed in; nobody new gets one yet."""

    retry_after: float


AcquireAnswer: TypeAlias = Granted | Held | Quarantined


class Renewed(msgspec.Struct, frozen=True):
    """Answer to renew: ours for another ttl, counted from before the request was sent."""

    ttl: float


class Gone(msgspec.Struct, frozen=True):
    """Answer to renew: the store confirmed that the lease is not ours any more."""

    reason: LossReason = LossReason.TAKEN


class Unknown(msgspec.Struct, frozen=True):
    """Answer to renew: no usable answer for this grant; it may or may not have been renewed."""

    why: str = ""


RenewAnswer: TypeAlias = Renewed | Gone | Unknown


class Claim(msgspec.Struct, frozen=True):
    """A leader's registration of its token with a marker store, before its first effect."""

    token: int
    owner: Owner
    lease_store: str = ""
    """Which lease store granted the token; claims of another store are waited out."""
    ttl: float = 0.0
    v: int = 1


class MarkerState(enum.Enum):
    """Where a step of a revision stands."""

    IN_PROGRESS = "in progress"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Stopped on request before its end; does not count against the failure budget."""


class Verdict(enum.Enum):
    """Whether a failed step is tried again by those that run now."""

    OPEN = ""
    """It is, within the fleet's budget."""
    SPENT = "budget spent"
    REFUSED = "refused"
    """No attempt can help, whatever is left of the budget."""


class MarkerRecord(msgspec.Struct, frozen=True):
    """Durable state of one step of one revision."""

    step: str
    revision: str
    state: MarkerState
    token: int = 0
    """Token of the claim it was written under; 0 for a record written by hand or by an earlier image."""
    owner: str = ""
    started: float = 0.0
    """Wall-clock seconds, for people and for ages of at least a minute only."""
    finished: float = 0.0
    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    exit_code: int = 0
    detail: str = ""
    """The last lines of output, or the reason of a failure; at most 4 KiB, never a secret."""
    fingerprint: str = ""
    beats: int = 0
    """Grows while the attempt is under way, so that leaders of other lease stores see that somebody is at work."""
    notes: dict[str, str] = {}
    verdict: Verdict = Verdict.OPEN
    """Of a failed step: whether whoever recorded the failure expected another attempt."""
    v: int = 1

    def late_for(self, stored: MarkerRecord) -> bool:
        """Return whether this is progress of an attempt of whose end, or of whose successor, ``stored`` tells.

        A request may be delayed on its way and arrive after those that were sent later. Stores keep nothing late.

        Example:
            >>> begun = MarkerRecord("migrate", "r1", MarkerState.IN_PROGRESS, 7, attempts=1)
            >>> ended = MarkerRecord("migrate", "r1", MarkerState.FAILED, 7, attempts=1, finished=1700000000.0)
            >>> begun.late_for(ended)
            True
        """
        if self.state is not MarkerState.IN_PROGRESS:
            return False
        if (self.token, self.fingerprint) != (stored.token, stored.fingerprint) or self.started > stored.started:
            return False
        # Without an end in time it is no end: an operator has forgiven an attempt that may be under way.
        ended = stored.state is not MarkerState.IN_PROGRESS and stored.finished > 0
        return self.attempts < stored.attempts or (self.attempts == stored.attempts and ended)


class MarkerView(msgspec.Struct, frozen=True):
    """One consistent-enough reading of a scope: its claim, then its records."""

    claim: Claim | None
    records: tuple[MarkerRecord, ...] = ()

    def find(self, step: str, revision: str) -> MarkerRecord | None:
        """Return the record of one step, or None when nothing is known about it."""
        for record in self.records:
            if record.step == step and record.revision == revision:
                return record
        return None


class Topic(NamedTuple):
    """Something a waiter can be woken for."""

    kind: str
    """``lease``: this owner's turn for a lease may have come; ``markers``: a scope's records changed."""
    name: str
    nonce: str = ""
