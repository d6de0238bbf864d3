"""The port: what a store has to do so that everything else works on it.

About a dozen atomic, non-blocking operations and nothing more: no threads, no sleeping, no retry policy, no
opinion. Time, loss, waiting and policy live in the core once, for every store. ``docs/how-to/write-a-plugin.md``
is the guide, `coordinate.testing` the contract that an implementation is held to.

Every operation may be called from several threads at once, answers within ``StoreSettings.timeout`` (or raises),
and raises nothing but errors of `coordinate.errors`: `BackendUnavailable` whenever it cannot know, `CorruptRecord`
when it read something that it cannot understand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from coordinate._clock import SYSTEM, Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import (
        AcquireAnswer,
        Capability,
        Claim,
        Finding,
        Grant,
        LeaseRecord,
        MarkerRecord,
        MarkerView,
        Owner,
        RenewAnswer,
        Topic,
    )
    from coordinate.url import StoreUrl

PLUGIN_API = 1
"""Version of this port. A plugin says in ``Backend.plugin_api`` which one it was written for."""


class StoreSettings(NamedTuple):
    """What every store is told besides its URL."""

    namespace: str = "coordinate"
    timeout: float = 2.0
    """Seconds after which an operation must have answered or raised."""
    max_ttl: float = 300.0
    """No lease of this namespace is longer, in seconds. The core refuses longer ones before a store is asked; a store
    needs it where it has to wait out leases that it has forgotten."""
    clock: Clock = SYSTEM


_LACKS = {
    "EXPIRY": "a holder that lives but hangs keeps its leases here",
    "WAKE": "this store cannot tell waiters; they look for themselves",
    "FLOOR": "after a restart this store may grant tokens that it has granted before",
    "CROSS_PROCESS": "only the threads of one process share this store",
    "CROSS_HOST": "only one host takes part in this store",
    "FAILOVER": "a failover or restart of this store may let a second holder in",
    "DURABLE_MARKERS": "this store may forget what it has acknowledged when it restarts",
}


class News(NamedTuple):
    """What came along with the changes of a scope.

    Args:
        number: grows with each change that was reported by this channel.
        record: a record that says done and was stored with the last change; None: look for yourself.
    """

    number: int = 0
    record: MarkerRecord | None = None


class Watch(ABC):
    """One waiting channel of this process to one store, however many waits there are.

    The core polls ``fileno()`` together with others' and calls ``drain()`` when it is readable.
    """

    poll_interval: float
    """A waiter looks for itself after at most this many seconds, whatever the channel says; may be ``inf``.

    It may change at any time: the core reads it again before each sleep.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `drain` has something to say."""

    @abstractmethod
    def add(self, topic: Topic) -> None:
        """Watch a topic. A change after this call returned is reported; one before it need not be.

        Raises:
            BackendUnavailable: the channel is broken; the core closes it and opens another.
        """

    @abstractmethod
    def remove(self, topic: Topic) -> None:
        """Stop watching a topic. An unknown one is ignored.

        Raises:
            BackendUnavailable: the channel is broken; the core closes it and opens another.
        """

    @abstractmethod
    def drain(self) -> frozenset[Topic]:
        """Return, without blocking, the topics that may have changed; may be too many, never too few.

        After anything that could have swallowed a change (a reconnection, an overflow) it names all topics.

        Raises:
            BackendUnavailable: the channel is broken; the core closes it and opens another.
        """

    def news(self, topic: Topic) -> News:  # noqa: ARG002 -- most stores tell that something has changed, not what
        """Return what came along with the changes of a scope that `drain` has named so far; no request.

        It spares a fleet of followers to ask, all at once, for what they were just told.
        """
        return News()

    @abstractmethod
    def close(self) -> None:
        """Give the channel up. Idempotent; never raises."""


class Backend(ABC):
    """One store, for leases, markers, or both."""

    schemes: ClassVar[tuple[str, ...]]
    """URL schemes this class answers to, the canonical one first."""
    plugin_api: ClassVar[int] = PLUGIN_API
    default_url: ClassVar[str]
    """The address that ``COORDINATE_BACKEND=<scheme>`` alone means."""

    @classmethod
    @abstractmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> Backend:
        """Return a backend for the URL. Connects lazily: an unreachable server is not an error here.

        Raises:
            ConfigError: an option or part of the URL that cannot work.
        """

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """Return what this store, as configured, guarantees."""

    @property
    @abstractmethod
    def store_id(self) -> str:
        """Return a name for this store and namespace, equal in all processes that share it; no secrets."""

    @abstractmethod
    def acquire(
        self, name: str, owner: Owner, ttl: float, *, floor: int = 0, queue: Watch | None = None, unled: bool = False
    ) -> AcquireAnswer:
        """Grant the lease if nobody holds it, with a token above ``floor`` and above all earlier ones of the name.

        Idempotent per owner nonce: the present owner gets its grant again, with the same token and the ttl that it
        was first granted, which begins anew; the ``ttl`` of a repeated call counts for nothing. With ``queue``,
        a `Held` or `Quarantined` answer also enters this owner into the line of waiters: when its turn comes, that
        watch reports ``Topic("lease", name, owner.nonce)``. It stays there until granted or `withdraw`.

        ``unled`` says that another store, in which every leader registers before its first effect, knows of none: a
        store that lost its memory need not make such an owner wait (`Quarantined`); others ignore it.
        """

    @abstractmethod
    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line of waiters; a wake-up that was already sent to this owner goes to the next one."""

    @abstractmethod
    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Extend many leases, if possible in one round trip; one answer for each grant, in order.

        Never raises for a server that does not answer: those grants are `Unknown`.
        """

    @abstractmethod
    def release(self, grant: Grant) -> bool:
        """End the lease and wake one waiter. False: it was not ours any more. Idempotent."""

    @abstractmethod
    def holder(self, name: str) -> LeaseRecord | None:
        """Return who holds the lease, or None."""

    @abstractmethod
    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return the held leases whose names start with ``prefix``, sorted by name."""

    @abstractmethod
    def break_lease(self, name: str) -> int:
        """End whatever lease there is, so that its holder's next renewal is `Gone`; return the raised token."""

    @abstractmethod
    def claim(self, scope: str, claim: Claim) -> None:
        """Register the leader's token for a scope; later marker writes need exactly this token.

        Accepted if the token is greater than the registered one, or is it with the same owner nonce (repeat).

        Raises:
            StaleToken: with the registered token as ``floor``.
        """

    @abstractmethod
    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store the record if ``token`` is the claimed one. Repeating the same record is accepted.

        What is `MarkerRecord.late_for` the stored record changes nothing: nobody waits for its answer any more.

        Raises:
            StaleToken: another token is claimed.
            AlreadyDone: the stored record of this step and revision is done, and this is not that very record.
        """

    @abstractmethod
    def markers(self, scope: str) -> MarkerView:
        """Return the claim and all records of a scope; damaged records are left out, never taken for done."""

    @abstractmethod
    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Forget one record, by order of an operator; no token needed. False: there was none."""

    @abstractmethod
    def scopes(self) -> list[str]:
        """Return the scopes that hold a claim or a record, sorted."""

    @abstractmethod
    def watch(self) -> Watch:
        """Return a new waiting channel."""

    @abstractmethod
    def notify(self, topic: Topic) -> None:
        """Wake those who watch a topic, for a change that happened in another store. May be lost."""

    @abstractmethod
    def ping(self) -> None:
        """Make one authenticated round trip.

        Raises:
            BackendUnavailable: with what was tried, on which server, and what to do next.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return facts about the store for people: kind, address without password, version."""

    def lacks(self, capability: Capability) -> str:
        """Return why this store, as configured, does not declare a capability, for the error of ``require``.

        A store whose settings decide names the one to change.
        """
        return _LACKS[capability.name]

    def doctor(self) -> list[Finding]:
        """Return which settings of the store, as configured, break a promise, for ``coordinate doctor``.

        A store without settings of that kind needs none of its own.

        Raises:
            BackendUnavailable: the store does not answer.
        """
        return []

    def descriptors(self, grant: Grant) -> tuple[int, ...]:  # noqa: ARG002 -- most stores have none
        """Return open descriptors that are the lease itself, to be held by the guardian of a child, too."""
        return ()

    def doubt(self, grant: Grant) -> str | None:  # noqa: ARG002 -- most stores know nothing between renewals
        """Return why nothing new may be begun under a grant at this instant, or None.

        For stores that know, between renewals, that the session which keeps the lease is interrupted. Asked before
        each effect: no request, no waiting. Where the doubt is not resolved, the core's own deadline ends the lease.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Release connections. Idempotent. Leases that are still held are left to expire."""
