"""``memory://``: the reference store. One process, an injected clock, every rule of the port in its plainest form.

``memory://name`` is shared by all coordinators of this process that use the same name (default: ``default``).
It is the executable specification that other stores are compared with, and what unit tests run on.
"""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.errors import AlreadyDone, StaleToken
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
    MarkerState,
    MarkerView,
    Owner,
    RenewAnswer,
    Renewed,
    Topic,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate._clock import Clock
    from coordinate.url import StoreUrl


class _Lease:
    """A held lease: what was granted, to whom, until when."""

    def __init__(self, grant: Grant, owner: Owner, expires: float) -> None:
        self.grant = grant
        self.owner = owner
        self.expires = expires


class _Store:
    """The state that coordinators of one name share."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.leases: dict[str, _Lease] = {}
        self.tokens: dict[str, int] = defaultdict(int)
        self.broken: dict[str, int] = {}
        self.queues: dict[str, dict[str, MemoryWatch]] = defaultdict(dict)
        self.claims: dict[str, Claim] = {}
        self.markers: dict[str, dict[tuple[str, str], MarkerRecord]] = defaultdict(dict)
        self.watches: set[MemoryWatch] = set()

    def current(self, name: str) -> _Lease | None:
        """Return the lease of a name unless it has expired."""
        lease = self.leases.get(name)
        if lease is not None and lease.expires <= self.clock.now():
            del self.leases[name]
            return None
        return lease

    def wake_one(self, name: str) -> None:
        """Pass the turn to the waiter that came first."""
        queue = self.queues[name]
        while queue:
            nonce = next(iter(queue))
            watch = queue.pop(nonce)
            if watch.push(Topic("lease", name, nonce)):
                return

    def wake_all(self, topic: Topic) -> None:
        """Tell every watch of a topic."""
        for watch in list(self.watches):
            if topic in watch.topics:
                watch.push(topic)


_STORES: dict[tuple[str, str], _Store] = {}
_STORES_LOCK = threading.Lock()


class MemoryWatch(Watch):
    """A waiting channel: a set of pending topics and an eventfd that says that it is not empty."""

    poll_interval = math.inf

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pending: set[Topic] = set()
        self.topics: set[Topic] = set()
        with store.lock:
            store.watches.add(self)

    def push(self, topic: Topic) -> bool:
        """Report a change. False: this watch is closed."""
        with self._store.lock:
            if self not in self._store.watches:
                return False
            self._pending.add(topic)
            os.eventfd_write(self._fd, 1)
            return True

    def fileno(self) -> int:
        """Return the eventfd."""
        return self._fd

    def add(self, topic: Topic) -> None:
        """Watch a topic from now on."""
        with self._store.lock:
            self.topics.add(topic)

    def remove(self, topic: Topic) -> None:
        """Stop watching a topic."""
        with self._store.lock:
            self.topics.discard(topic)

    def drain(self) -> frozenset[Topic]:
        """Return what changed since the last call."""
        with self._store.lock:
            pending = frozenset(self._pending)
            if pending:
                self._pending.clear()
                os.eventfd_read(self._fd)
            return pending

    def close(self) -> None:
        """Give up; a wake-up that nobody took goes to the next waiter."""
        with self._store.lock:
            if self not in self._store.watches:
                return
            self._store.watches.discard(self)
            os.close(self._fd)
            for topic in self._pending:
                if topic.kind == "lease" and self._store.current(topic.name) is None:
                    self._store.wake_one(topic.name)


class MemoryBackend(Backend):
    """All operations under one lock, judged by one clock."""

    schemes: ClassVar[tuple[str, ...]] = ("memory",)
    default_url: ClassVar[str] = "memory://"

    def __init__(self, store: _Store, store_id: str) -> None:
        self._store = store
        self._store_id = store_id

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> MemoryBackend:
        """Return a backend on the process's store of that name; the first one to open it brings the clock."""
        url.check_options(())
        name = url.hosts[0].name if url.hosts else "default"
        with _STORES_LOCK:
            store = _STORES.setdefault((name, settings.namespace), _Store(settings.clock))
        return cls(store, f"memory:{name}/{settings.namespace}")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what one process's memory can promise."""
        return frozenset({Capability.EXPIRY, Capability.WAKE})

    @property
    def store_id(self) -> str:
        """Return the store's name."""
        return self._store_id

    def acquire(
        self,
        name: str,
        owner: Owner,
        ttl: float,
        *,
        floor: int = 0,
        queue: Watch | None = None,
        unled: bool = False,  # noqa: ARG002 -- nothing is ever forgotten here
    ) -> AcquireAnswer:
        """Grant, or say who holds it."""
        store = self._store
        with store.lock:
            lease = store.current(name)
            now = store.clock.now()
            if lease is None:
                store.tokens[name] = max(store.tokens[name], floor) + 1
                grant = Grant(name, store.tokens[name], owner.nonce, ttl)
                lease = store.leases[name] = _Lease(grant, owner, now + ttl)
            if lease.owner.nonce == owner.nonce:
                lease.expires = now + lease.grant.ttl
                store.queues[name].pop(owner.nonce, None)
                return Granted(lease.grant)
            if isinstance(queue, MemoryWatch):
                store.queues[name].setdefault(owner.nonce, queue)
            return Held(self._record(lease), lease.expires - now)

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line; pass a turn on that was given to this owner."""
        with self._store.lock:
            waiting = self._store.queues[name].pop(owner.nonce, None)
            if waiting is None and self._store.current(name) is None:
                self._store.wake_one(name)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Extend each grant that is still current."""
        return [self._renew(grant) for grant in grants]

    def _renew(self, grant: Grant) -> RenewAnswer:
        store = self._store
        with store.lock:
            lease = store.current(grant.name)
            if lease is not None and lease.grant.token == grant.token and lease.owner.nonce == grant.nonce:
                lease.expires = store.clock.now() + grant.ttl
                return Renewed(grant.ttl)
            if store.broken.get(grant.name, 0) > grant.token:
                return Gone(LossReason.BROKEN)
            return Gone(LossReason.TAKEN if store.tokens[grant.name] > grant.token else LossReason.EXPIRED)

    def release(self, grant: Grant) -> bool:
        """End the lease if it is this grant's and wake the next waiter."""
        store = self._store
        with store.lock:
            lease = store.current(grant.name)
            if lease is None or lease.owner.nonce != grant.nonce:
                return False
            del store.leases[grant.name]
            store.wake_one(grant.name)
            return True

    def _record(self, lease: _Lease) -> LeaseRecord:
        remaining = lease.expires - self._store.clock.now()
        return LeaseRecord(lease.grant.name, lease.grant.token, lease.owner, lease.grant.ttl, remaining)

    def holder(self, name: str) -> LeaseRecord | None:
        """Return the current holder."""
        with self._store.lock:
            lease = self._store.current(name)
            return None if lease is None else self._record(lease)

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return all current leases below a prefix."""
        with self._store.lock:
            names = sorted(name for name in self._store.leases if name.startswith(prefix))
            return [self._record(lease) for name in names if (lease := self._store.current(name))]

    def break_lease(self, name: str) -> int:
        """End the lease and raise the token."""
        store = self._store
        with store.lock:
            store.tokens[name] += 1
            store.broken[name] = store.tokens[name]
            if store.leases.pop(name, None) is not None:
                store.wake_one(name)
            return store.tokens[name]

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a token that is strictly greater, or the same one again."""
        with self._store.lock:
            present = self._store.claims.get(scope)
            if present is not None and not _supersedes(claim, present):
                message = f"claim of {scope!r} with token {claim.token} refused: {present.token} is registered"
                raise StaleToken(message, present.token)
            self._store.claims[scope] = claim
            self._store.wake_all(Topic("markers", scope))

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record under the claimed token."""
        store = self._store
        with store.lock:
            claimed = store.claims[scope].token if scope in store.claims else 0
            if token != claimed:
                message = f"marker of {scope!r} with token {token} refused: {claimed} is registered"
                raise StaleToken(message, claimed)
            key = (record.step, record.revision)
            stored = store.markers[scope].get(key)
            if stored is not None and stored.state is MarkerState.DONE and stored != record:
                message = f"step {record.step!r} of {record.revision!r} is done already"
                raise AlreadyDone(message)
            if stored is not None and record.late_for(stored):
                return
            store.markers[scope][key] = record
            store.wake_all(Topic("markers", scope))

    def markers(self, scope: str) -> MarkerView:
        """Return claim and records of a scope."""
        with self._store.lock:
            records = self._store.markers.get(scope, {})
            return MarkerView(self._store.claims.get(scope), tuple(records.values()))

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        with self._store.lock:
            found = self._store.markers[scope].pop((step, revision), None) is not None
            if found:
                self._store.wake_all(Topic("markers", scope))
            return found

    def scopes(self) -> list[str]:
        """Return the known scopes."""
        with self._store.lock:
            return sorted({*self._store.claims, *(key for key, value in self._store.markers.items() if value)})

    def watch(self) -> Watch:
        """Return a new channel."""
        return MemoryWatch(self._store)

    def notify(self, topic: Topic) -> None:
        """Wake the watches of a topic."""
        with self._store.lock:
            self._store.wake_all(topic)

    def ping(self) -> None:
        """Return: memory always answers."""

    def describe(self) -> dict[str, str]:
        """Return what there is to say."""
        return {"kind": "memory", "address": self._store_id}

    def close(self) -> None:
        """Return: other coordinators of this process may still use the store."""


def _supersedes(new: Claim, present: Claim) -> bool:
    repeated = new.token == present.token and new.owner.nonce == present.owner.nonce
    return new.token > present.token or repeated
