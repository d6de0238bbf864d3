"""The port's operations on Redis: which script, which keys, and what its reply means."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from coordinate import _names, _wire
from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.backends.redis import facts, scripts
from coordinate.backends.redis.keys import Keys
from coordinate.backends.redis.markers import Markers
from coordinate.backends.redis.topology import Standalone
from coordinate.backends.redis.watch import RedisWatch
from coordinate.errors import BackendUnavailable, CorruptRecord
from coordinate.types import (
    AcquireAnswer,
    Capability,
    Claim,
    Gone,
    Grant,
    Granted,
    Held,
    LeaseRecord,
    LossReason,
    MarkerRecord,
    MarkerView,
    Owner,
    RenewAnswer,
    Renewed,
    Topic,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.backends.redis.topology import Reply
    from coordinate.url import StoreUrl

_GONE = {0: LossReason.EXPIRED, -1: LossReason.TAKEN, -2: LossReason.BROKEN}
_ALWAYS = frozenset(
    {Capability.EXPIRY, Capability.WAKE, Capability.FLOOR, Capability.CROSS_PROCESS, Capability.CROSS_HOST}
)


class RedisBackend(Backend):
    """One Redis server, for leases, markers or both.

    Promises that one script decides each operation, that repeating one after a lost reply is safe, and that
    tokens grow also after the server lost its data, unless its clock went back as well. Does not promise that
    a held lease survives a restart without persistence, a failover, FLUSHALL or eviction, nor that it lasts
    when the server's clock jumps forward. Whether ``done`` survives a crash is a capability: `facts.durable`.

    URL: ``redis://[user:password@]host[:port][/db]`` or ``unix://[user:password@]/path``; options ``timeout``
    in seconds, ``client_name`` and, for ``unix://``, ``db``. Two spellings of one address are two stores to
    `store_id`.
    """

    schemes: ClassVar[tuple[str, ...]] = ("redis", "unix")
    default_url: ClassVar[str] = "redis://localhost:6379/0"

    def __init__(self, server: Standalone, namespace: str) -> None:
        self._server = server
        self._namespace = namespace
        self._keys = Keys(namespace)
        self._markers = Markers(server, self._keys)
        self._capabilities: frozenset[Capability] | None = None

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> RedisBackend:
        """Return a backend; the first operation connects.

        Raises:
            ConfigError: an option, database or namespace that cannot work.
        """
        namespace = _names.check_name(settings.namespace, "namespace")
        return cls(Standalone(url, settings), namespace)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what this server guarantees; asks it until it has answered once."""
        if self._capabilities is not None:
            return self._capabilities
        try:
            durable = facts.durable(facts.read(self._server))
        except BackendUnavailable:
            # Unreachable now, or INFO is forbidden: promise less, and ask again the next time.
            return _ALWAYS
        self._capabilities = _ALWAYS | {Capability.DURABLE_MARKERS} if durable else _ALWAYS
        return self._capabilities

    @property
    def store_id(self) -> str:
        """Return address, database and namespace as the URL spells them."""
        address = self._server.address
        return f"redis:{address.place}/{address.db}/{self._namespace}"

    def acquire(
        self, name: str, owner: Owner, ttl: float, *, floor: int = 0, queue: Watch | None = None
    ) -> AcquireAnswer:
        """Grant, or say who holds it.

        Raises:
            BackendUnavailable: no usable answer, or a floor more than a day ahead of the server's clock.
            CorruptRecord: what is stored about the lease cannot be read.
        """
        channel = queue.channel if isinstance(queue, RedisWatch) else b""
        milliseconds = b"%d" % max(1, round(ttl * 1000))
        args = (owner.nonce.encode(), milliseconds, b"%d" % floor, _wire.encode(owner), channel)
        reply = self._server.run("acquire", scripts.ACQUIRE, self._keys.lease(name), args)
        if isinstance(reply, bytes):
            token, _, granted = reply.partition(b" ")
            return Granted(Grant(name, int(token), owner.nonce, int(granted) / 1000))
        record = _record(name, reply)
        # A key lives until the millisecond after its time; before that, looking again would be in vain.
        return Held(record, min(record.ttl, record.remaining + 0.001))

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line of waiters, or hand on the turn that was given to this owner."""
        self._leave(Topic("lease", name, owner.nonce))

    def _leave(self, turn: Topic) -> None:
        keys = self._keys.lease(turn.name)
        args = (turn.nonce.encode(), turn.name.encode())
        self._server.run("withdraw", scripts.WITHDRAW, (keys.lease, keys.queue, keys.waiters), args)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Extend up to 500 leases in each round trip; what fails is `Unknown` for those of its round trip."""
        answers: list[RenewAnswer] = [Unknown()] * len(grants)
        keys = [self._keys.lease(grant.name) for grant in grants]
        for batch in self._server.batches([key.lease for key in keys]):
            parts = [key for index in batch for key in (keys[index].lease, keys[index].token)]
            args = [word for index in batch for word in (grants[index].nonce.encode(), b"%d" % grants[index].token)]
            try:
                reply = self._server.run("renew", scripts.RENEW, parts, args)
            except BackendUnavailable as error:
                found: list[RenewAnswer] = [Unknown(str(error))] * len(batch)
            else:
                found = [_renewal(answer) for answer in cast("list[Reply]", reply)]
            for index, answer in zip(batch, found, strict=True):
                answers[index] = answer
        return answers

    def release(self, grant: Grant) -> bool:
        """End the lease if it is this grant's and wake the next waiter whose process lives."""
        keys = self._keys.lease(grant.name)
        args = (grant.nonce.encode(), grant.name.encode())
        return self._server.run("release", scripts.RELEASE, (keys.lease, keys.queue, keys.waiters), args) == 1

    def holder(self, name: str) -> LeaseRecord | None:
        """Return the current holder.

        Raises:
            CorruptRecord: what is stored about the lease cannot be read.
        """
        (record,) = self._read([name])
        return record

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return the leases below a prefix; walks through all keys of the database, in many short requests.

        Raises:
            CorruptRecord: what is stored about one of them cannot be read.
        """
        keys = self._server.scan("listing leases", self._keys.lease_pattern(prefix))
        names = sorted(map(self._keys.name_of, keys))
        return [record for record in self._read(names) if record is not None]

    def _read(self, names: list[str]) -> list[LeaseRecord | None]:
        records: list[LeaseRecord | None] = [None] * len(names)
        keys = [self._keys.lease(name).lease for name in names]
        for batch in self._server.batches(keys):
            reply = self._server.run("reading leases", scripts.READ, [keys[index] for index in batch])
            for index, held in zip(batch, cast("list[Reply]", reply), strict=True):
                records[index] = None if held is None else _record(names[index], held)
        return records

    def break_lease(self, name: str) -> int:
        """End the lease, damaged ones, too, and raise the token."""
        reply = self._server.run("break", scripts.BREAK, self._keys.lease(name), (name.encode(),))
        return int(cast(bytes, reply))

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
        return RedisWatch(self._server, self._keys, self._leave)

    def notify(self, topic: Topic) -> None:
        """Publish on a scope's channel. Turns for a lease are given by the scripts alone."""
        if topic.kind == "markers":
            self._server.ask("notify", b"PUBLISH", self._keys.scope(topic.name).changed, b"notify")

    def ping(self) -> None:
        """Make one authenticated round trip."""
        self._server.ask("ping", b"PING")

    def describe(self) -> dict[str, str]:
        """Return kind, address, version, role, persistence and eviction policy; the last four need INFO."""
        known = {"kind": "redis", "address": str(self._server.url)}
        return known | facts.described(facts.read(self._server))

    def close(self) -> None:
        """Close the connections. Watches are closed by who opened them."""
        self._server.close()


def _record(name: str, reply: Reply) -> LeaseRecord:
    token, ttl, owner, left = cast("tuple[bytes | None, bytes | None, bytes | None, int]", reply)
    if token is None or ttl is None or owner is None or not (token.isdigit() and ttl.isdigit()):
        message = f"lease {name!r} is stored without its token, ttl or owner; breaking it repairs it"
        raise CorruptRecord(message)
    seconds = int(ttl) / 1000
    # Without an expiry, or with one beyond the ttl, it is as good as just granted: acquire() re-arms it.
    remaining = min(left / 1000, seconds) if left >= 0 else seconds
    return LeaseRecord(name, int(token), _wire.decode(Owner, owner), seconds, remaining)


def _renewal(reply: Reply) -> RenewAnswer:
    if isinstance(reply, int):
        return Renewed(reply / 1000) if reply > 0 else Gone(_GONE[reply])
    return Unknown(cast(bytes, reply).decode(errors="replace"))
