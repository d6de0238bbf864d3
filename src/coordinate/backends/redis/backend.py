"""The port's operations on Redis, put together from leases, markers and waiting channels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from coordinate import _names
from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.backends.redis import facts, options
from coordinate.backends.redis.incarnation import Census
from coordinate.backends.redis.keys import Keys
from coordinate.backends.redis.leases import Asking, Leases
from coordinate.backends.redis.markers import Markers
from coordinate.backends.redis.watch import RedisWatch
from coordinate.errors import BackendUnavailable
from coordinate.types import Capability, Topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.backends.redis.topology import Topology
    from coordinate.types import (
        AcquireAnswer,
        Claim,
        Finding,
        Grant,
        LeaseRecord,
        MarkerRecord,
        MarkerView,
        Owner,
        RenewAnswer,
    )
    from coordinate.url import StoreUrl

log = logging.getLogger("coordinate")

_ALWAYS = frozenset(
    {Capability.EXPIRY, Capability.WAKE, Capability.FLOOR, Capability.CROSS_PROCESS, Capability.CROSS_HOST}
)


_SENTINEL = ("redis+sentinel", "rediss+sentinel", "sentinel")
"""The last one is how Celery's users write it."""
_CLUSTER = ("redis+cluster", "rediss+cluster")


class RedisBackend(Backend):
    """Redis servers, for leases, markers or both.

    Promises that one script decides each operation, that repeating one after a lost reply is safe, and that
    tokens grow also after a server lost its data, unless its clock went back as well. Where a server shows its
    INFO, a failover or restart that loses leases lets nobody new in before the old holders' time is over; see
    `coordinate.backends.redis.incarnation`. Does not promise that a held lease survives FLUSHALL or eviction, nor
    that it lasts when the server's clock jumps forward. Whether ``done`` survives a crash is a capability:
    `facts.durable`.

    Two spellings of one address are two stores to `store_id`.
    """

    schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss", "unix", *_SENTINEL, *_CLUSTER)
    default_url: ClassVar[str] = "redis://localhost:6379/0"

    def __init__(self, server: Topology, namespace: str, census: Census) -> None:
        self._server = server
        self._namespace = namespace
        self._census = census
        self._keys = Keys(namespace)
        self._leases = Leases(server, self._keys, census)
        self._markers = Markers(server, self._keys, self._may_promise_durable_markers)
        self._capabilities: frozenset[Capability] | None = None
        self._asked_at = 0

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> RedisBackend:
        """Return a backend; the first operation connects.

        Raises:
            ConfigError: an option, database, host list or namespace that cannot work.
        """
        namespace = _names.check_name(settings.namespace, "namespace")
        census = Census(Keys(namespace), options.choice(url, "quarantine", options.QUARANTINE))
        return cls(_topology(url, settings, census), namespace, census)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what these servers guarantee, all of them; asks until they have answered, and when they change."""
        try:
            settled = self._settled()
        except BackendUnavailable:
            # Unreachable now: promise less, and ask again the next time.
            return _ALWAYS
        # Whether a server hides its INFO is known anew with each connection.
        return settled | {Capability.FAILOVER} if self._census.on else settled

    def _settled(self) -> frozenset[Capability]:
        """Return what depends on settings, as they were when the servers were first asked.

        Raises:
            BackendUnavailable: they have not said yet.
        """
        changes = self._server.changes
        if self._capabilities is None or self._asked_at != changes:
            durable = all(map(facts.durable, facts.read(self._server)))
            self._capabilities = _ALWAYS | {Capability.DURABLE_MARKERS} if durable else _ALWAYS
            self._asked_at = changes
        return self._capabilities

    def lacks(self, capability: Capability) -> str:
        """Name the settings of the server, or the option, that stand in the way."""
        if capability is Capability.FAILOVER:
            return "quarantine=off in the URL" if not self._census.hidden else "the server hides INFO: allow +info"
        if capability is Capability.DURABLE_MARKERS:
            try:
                found = [finding for finding in self.doctor() if "markers" in finding.concerns]
            except BackendUnavailable as error:
                return f"the server has not answered: {error}"
            if found:
                return "; ".join(f"{finding.setting}: {finding.fix}" for finding in found)
            return "the server does not show how it persists: allow +config|get and +info"
        return super().lacks(capability)

    def _may_promise_durable_markers(self) -> bool:
        """Return False only if the servers have said so: while they cannot be asked, somebody may rely on it."""
        try:
            return Capability.DURABLE_MARKERS in self._settled()
        except BackendUnavailable:
            return True

    @property
    def store_id(self) -> str:
        """Return addresses, database and namespace as the URL spells them."""
        return f"redis:{self._server.place}/{self._namespace}"

    def acquire(
        self, name: str, owner: Owner, ttl: float, *, floor: int = 0, queue: Watch | None = None, unled: bool = False
    ) -> AcquireAnswer:
        """Grant, or say who holds it, or that the server lost its memory and others may still believe.

        Raises:
            BackendUnavailable: no usable answer, or a floor more than a day ahead of the server's clock.
            CorruptRecord: what is stored about the lease cannot be read.
        """
        channel = queue.channel(name) if isinstance(queue, RedisWatch) else b""
        return self._leases.acquire(name, owner, ttl, Asking(floor, channel, unled))

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line of waiters, or hand on the turn that was given to this owner."""
        self._leases.withdraw(name, owner.nonce)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Extend up to 500 leases in each request; what fails is `Unknown` for those of its request."""
        return self._leases.renew(grants)

    def release(self, grant: Grant) -> bool:
        """End the lease if it is this grant's and wake the next waiter whose process lives."""
        return self._leases.release(grant)

    def holder(self, name: str) -> LeaseRecord | None:
        """Return the current holder.

        Raises:
            CorruptRecord: what is stored about the lease cannot be read.
        """
        (record,) = self._leases.read([name])
        return record

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return the leases below a prefix; walks through all keys of the database, in many short requests.

        Raises:
            CorruptRecord: what is stored about one of them cannot be read.
        """
        return self._leases.all(prefix)

    def break_lease(self, name: str) -> int:
        """End the lease, damaged ones, too, and raise the token."""
        return self._leases.break_lease(name)

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a token that is strictly greater, or the same one again."""
        self._markers.claim(scope, claim)

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record under the claimed token."""
        self._markers.put(scope, record, token)

    def markers(self, scope: str) -> MarkerView:
        """Return claim and records of a scope, all of one instant."""
        return self._markers.view(scope)

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        return self._markers.delete(scope, step, revision)

    def scopes(self) -> list[str]:
        """Return the known scopes; walks through all keys of the database, in many short requests."""
        return self._markers.scopes()

    def watch(self) -> RedisWatch:
        """Return a new subscribed connection.

        Raises:
            BackendUnavailable: the server did not confirm the subscription.
        """
        return RedisWatch(self._server, self._keys, lambda turn: self._leases.withdraw(turn.name, turn.nonce))

    def notify(self, topic: Topic) -> None:
        """Publish on a scope's channel. Turns for a lease are given by the scripts alone."""
        if topic.kind == "markers":
            channel = self._keys.scope(topic.name).changed
            self._server.converse("notify", channel, lambda line: line.ask(b"PUBLISH", channel, b"notify"))

    def ping(self) -> None:
        """Make one authenticated round trip."""
        self._server.ask("ping", b"PING")

    def describe(self) -> dict[str, str]:
        """Return kind, address, version, role, persistence, eviction policy; without INFO the latter are unknown."""
        known = {"kind": "redis", "address": str(self._server.url)}
        return known | facts.described(facts.read(self._server)[0])

    def doctor(self) -> list[Finding]:
        """Return which settings of the servers and of the URL break a promise.

        Raises:
            BackendUnavailable: a server does not answer.
        """
        from coordinate.backends.redis import doctor  # noqa: PLC0415 -- one command needs it

        return doctor.examine(self._server)

    def close(self) -> None:
        """Close the connections. Watches are closed by who opened them."""
        self._server.close()


def _topology(url: StoreUrl, settings: StoreSettings, census: Census) -> Topology:
    # Each is imported only when a URL names it: most programs need one.
    if url.scheme in _SENTINEL:
        from coordinate.backends.redis import sentinel  # noqa: PLC0415

        return sentinel.Sentinel(url, options.read(url, settings, *sentinel.OPTIONS), census)
    if url.scheme in _CLUSTER:
        from coordinate.backends.redis.cluster import Cluster  # noqa: PLC0415

        return Cluster(url, options.read(url, settings), census)
    from coordinate.backends.redis.standalone import Standalone  # noqa: PLC0415

    more = ("db",) if url.scheme == "unix" else ()
    return Standalone(url, options.read(url, settings, *more), census)
