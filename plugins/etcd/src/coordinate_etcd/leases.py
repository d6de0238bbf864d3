"""Leases: a key that exists while its holder's server lease does. One transaction grants it, one removes it.

The token is ``base`` + the revision that created the key. Revisions of one ensemble only grow; ``base`` is one key of
the namespace, compared in the transaction that grants, and raised when a floor demands more than the revision gives:
after the ensemble has been wiped or restored, or when tokens of another store came before. A key that records a floor
which its revision does not reach counts as ``floor`` + revision, and is answered to nobody before ``base`` is raised.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from coordinate import _wire
from coordinate.errors import BackendUnavailable, CorruptRecord
from coordinate.types import (
    Gone,
    Grant,
    Granted,
    Held,
    LeaseRecord,
    LossReason,
    Owner,
    RenewAnswer,
    Renewed,
    Unknown,
)
from coordinate_etcd import messages
from coordinate_etcd.failures import LeaseMissing
from coordinate_etcd.keys import after
from coordinate_etcd.loader import load
from coordinate_etcd.sessions import Note, Sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate._clock import Clock
    from coordinate_etcd.ensemble import Ensemble
    from coordinate_etcd.keys import Keys
    from coordinate_etcd.messages import Message

_etcd = load()
_ROUNDS = 20
"""Attempts within one operation while others change the same keys; each means that somebody else made progress."""
_ONE_BY_ONE = 64
"""Keys that a renewal reads singly (etcd takes 128 to a transaction); above that it reads the range they lie in."""


class Stored(msgspec.Struct, frozen=True):
    """The value of a lease's key."""

    owner: Owner
    ttl: float
    base: int = 0
    floor: int = 0
    v: int = 1


def _token(stored: Stored, created: int) -> int:
    token = stored.base + created
    return token if token > stored.floor else stored.floor + created


def _reads(found: Message) -> Stored:
    return _wire.decode(Stored, bytes(found.value))


class Leases:
    """Granting, renewing, ending."""

    def __init__(self, ensemble: Ensemble, keys: Keys, clock: Clock) -> None:
        self._ensemble = ensemble
        self._keys = keys
        self._clock = clock
        self._base = (0, 0)
        """What we last knew of the base: the revision that wrote it, and its value."""
        probe = messages.transaction(success=[messages.get(keys.base, count_only=True)])
        self.sessions = Sessions(ensemble, clock, probe, self._sweep)

    # Granting

    def acquire(self, name: str, owner: Owner, ttl: float, floor: int, place: bytes = b"") -> Granted | Held:
        """Grant the lease, or say who holds it; a grant removes the waiter's ``place`` in the line.

        Raises:
            BackendUnavailable: no usable answer.
            CorruptRecord: something else is stored at the lease's key.
        """
        what = f"acquire {name!r}"
        key = self._keys.lease(name)
        for _ in range(_ROUNDS):
            session = self.sessions.fit(what, ttl)
            known = self.sessions.noted(key, owner.nonce)
            if known is None or not known.revision:
                # Before it is sent: should the answer be lost, the key must not outlive our interest in it.
                self.sessions.note(key, owner.nonce, Note(session.number, self._clock.now() + ttl, 0))
            base_at, base = self._base
            stored = Stored(owner, ttl, base, floor)
            request = messages.transaction(
                [messages.created(key, 0), messages.modified(self._keys.base, base_at)],
                [
                    messages.put(key, _wire.encode(stored), session.number),
                    *([messages.delete(place)] if place else []),
                ],
                [messages.get(key), messages.get(self._keys.base)],
            )
            try:
                reply = self._ensemble.call(what, "Txn", request).message
            except LeaseMissing:
                self.sessions.discard(session)
                continue
            if reply.succeeded:
                revision = reply.header.revision
                note = Note(session.number, self._clock.now() + ttl, revision)
                self.sessions.note(key, owner.nonce, note)
                if self._raised(what, key, stored, revision):
                    return Granted(Grant(name, _token(stored, revision), owner.nonce, ttl))
                continue
            answer = self._refused(name, owner, reply)
            if answer is not None:
                return answer
        message = f"{what} on {self._ensemble.url} failed: others changed it {_ROUNDS} times meanwhile; ask again"
        raise BackendUnavailable(message)

    def _refused(self, name: str, owner: Owner, reply: Message) -> Granted | Held | None:
        """Return what the transaction's reads say; None: try again."""
        self._learn_base(messages.first(reply, 1))
        found = messages.first(reply, 0)
        key = self._keys.lease(name)
        if found is None:
            return None
        stored = _reads(found)
        if stored.owner.nonce != owner.nonce:
            self.sessions.forget(key, owner.nonce)
            return Held(self.record(found), stored.ttl)
        return self._again(name, stored, found)

    def _again(self, name: str, stored: Stored, found: Message) -> Granted | None:
        """Grant once more what this owner has: as after a lost reply."""
        what = f"acquire {name!r}"
        key = self._keys.lease(name)
        self.sessions.note(
            key, stored.owner.nonce, Note(found.lease, self._clock.now() + stored.ttl, found.create_revision)
        )
        if not self._raised(what, key, stored, found.create_revision):
            return None
        grant = Grant(name, _token(stored, found.create_revision), stored.owner.nonce, stored.ttl)
        (answer,) = self.renew([grant])
        if isinstance(answer, Unknown):
            message = f"{what} on {self._ensemble.url} failed: {answer.why}"
            raise BackendUnavailable(message)
        return Granted(grant) if isinstance(answer, Renewed) else None

    def _learn_base(self, found: Message | None) -> None:
        self._base = (0, 0) if found is None else (found.mod_revision, _number(bytes(found.value)))

    def _raised(self, what: str, key: bytes, stored: Stored, created: int) -> bool:
        """Make sure that later tokens are above this one; False: the key is gone meanwhile."""
        if stored.base + created > stored.floor:
            return True
        reading = [messages.get(self._keys.base)]
        for _ in range(_ROUNDS):
            base_at, base = self._base
            value = str(max(base, stored.floor)).encode()
            same = [messages.created(key, created), messages.modified(self._keys.base, base_at)]
            request = messages.transaction(same, [messages.put(self._keys.base, value)], [messages.get(key), *reading])
            reply = self._ensemble.call(what, "Txn", request).message
            if reply.succeeded:
                self._base = (reply.header.revision, int(value))
                return True
            found = messages.first(reply, 0)
            self._learn_base(messages.first(reply, 1))
            if found is None or found.create_revision != created:
                return False
            if self._base[1] >= stored.floor:
                return True
        return False

    # Renewing

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Keep the server leases of all grants alive, and confirm that each still has its key."""
        if not grants:
            return []
        try:
            answers = self._renew(grants)
        except (BackendUnavailable, LeaseMissing) as error:
            return [Unknown(str(error))] * len(grants)
        self._sweep()
        return answers

    def _renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        what = "renew"
        now = self._clock.now()
        origins = [self._origin(grant) for grant in grants]
        numbers = {session for session, _ in origins if session}
        names = sorted({grant.name for grant in grants})
        alive, reply = self.sessions.extend(what, numbers, self._reading(names))
        found = {bytes(kv.key): kv for part in reply.message.responses for kv in part.response_range.kvs}
        answers: list[RenewAnswer] = []
        for grant, (session, revision) in zip(grants, origins, strict=True):
            key = self._keys.lease(grant.name)
            kv = found.get(key)
            if kv is not None and kv.create_revision == revision and kv.lease == session and session in alive:
                self.sessions.note(key, grant.nonce, Note(session, now + grant.ttl, revision))
                answers.append(Renewed(grant.ttl))
            else:
                self.sessions.forget(key, grant.nonce)
                answers.append(self._gone(grant, taken=kv is not None))
        return answers

    def _origin(self, grant: Grant) -> tuple[int, int]:
        """Return the server lease and the revision of a grant's key; zeros if it has none any more."""
        key = self._keys.lease(grant.name)
        note = self.sessions.noted(key, grant.nonce)
        if note is not None and note.revision:
            return note.session, note.revision
        found = self._read(f"renew {grant.name!r}", key)
        if found is None or _reads(found).owner.nonce != grant.nonce:
            return 0, 0
        return found.lease, found.create_revision

    def _reading(self, names: Sequence[str]) -> Message:
        keys = [self._keys.lease(name) for name in names]
        if len(keys) <= _ONE_BY_ONE:
            reads = [messages.get(key, keys_only=True) for key in keys]
        else:
            reads = [messages.get(min(keys), max(keys) + b"\0", keys_only=True)]
        return messages.transaction(success=reads)

    def _gone(self, grant: Grant, *, taken: bool) -> Gone:
        found = self._read(f"renew {grant.name!r}", self._keys.broken(grant.name))
        if found is not None and _number(bytes(found.value)) + found.mod_revision > grant.token:
            return Gone(LossReason.BROKEN)
        return Gone(LossReason.TAKEN if taken else LossReason.EXPIRED)

    def _sweep(self) -> None:
        """Remove keys of ours that nobody here believes in any more; what fails is tried again next time."""
        with contextlib.suppress(BackendUnavailable, CorruptRecord):
            for key, nonce, note in self.sessions.stale():
                if key.startswith(self._keys.leases):
                    self._end("let a lease lapse", key, nonce, note)
                else:
                    self._ensemble.call("leave the line", "Txn", messages.transaction(success=[messages.delete(key)]))
                    self.sessions.forget(key, nonce)

    # Ending and looking

    def release(self, grant: Grant) -> bool:
        """Remove the key if it is this grant's, which wakes the first in line."""
        key = self._keys.lease(grant.name)
        return self._end(f"release {grant.name!r}", key, grant.nonce, self.sessions.noted(key, grant.nonce))

    def _end(self, what: str, key: bytes, nonce: str, note: Note | None) -> bool:
        revision = note.revision if note is not None else 0
        found = None
        if not revision:
            found = self._read(what, key)
            revision = found.create_revision if found is not None and _reads(found).owner.nonce == nonce else 0
        ended = False
        if revision:
            request = messages.transaction([messages.created(key, revision)], [messages.delete(key)])
            reply = self._ensemble.call(what, "Txn", request)
            # Sent twice and gone: the first one did it.
            ended = reply.message.succeeded or reply.repeated
        self.sessions.forget(key, nonce)
        return ended

    def holder(self, name: str) -> LeaseRecord | None:
        """Return who holds it."""
        what = f"read the holder of {name!r}"
        found = self._read(what, self._keys.lease(name))
        return None if found is None else self._record(what, found, {})

    def record(self, found: Message) -> LeaseRecord:
        """Return what a lease's key says."""
        stored = _reads(found)
        name = self._keys.name(bytes(found.key))
        return LeaseRecord(name, _token(stored, found.create_revision), stored.owner, stored.ttl)

    def leases(self, prefix: str) -> list[LeaseRecord]:
        """Return all that are held below a prefix; what cannot be read is left out."""
        what = "list the leases"
        start = self._keys.lease(prefix)
        request = messages.transaction(success=[messages.get(start, after(start))])
        times: dict[int, float] = {}
        records = []
        for found in messages.found(self._ensemble.call(what, "Txn", request).message, 0):
            with contextlib.suppress(CorruptRecord):
                records.append(self._record(what, found, times))
        return sorted(records, key=lambda record: record.name)

    def _record(self, what: str, found: Message, times: dict[int, float]) -> LeaseRecord:
        record = self.record(found)
        if found.lease not in times:
            request = _etcd.LeaseTimeToLiveRequest(ID=found.lease)
            with contextlib.suppress(LeaseMissing):
                # Whole seconds, rounded down; a lease that is still there has something left.
                left = self._ensemble.call(what, "LeaseTimeToLive", request).message.TTL
                times[found.lease] = max(0.5, float(left))
        remaining = min(times.get(found.lease, 0.5), record.ttl)
        return msgspec.structs.replace(record, remaining=remaining)

    def break_lease(self, name: str) -> int:
        """Remove the key, whoever's it is, and return a token that is below all later ones only."""
        what = f"break {name!r}"
        for _ in range(_ROUNDS):
            base_at, base = self._base
            request = messages.transaction(
                [messages.modified(self._keys.base, base_at)],
                [messages.delete(self._keys.lease(name)), messages.put(self._keys.broken(name), str(base).encode())],
                [messages.get(self._keys.base)],
            )
            reply = self._ensemble.call(what, "Txn", request).message
            if reply.succeeded:
                return base + int(reply.header.revision)
            self._learn_base(messages.first(reply, 0))
        message = f"{what} on {self._ensemble.url} failed: others raised the tokens meanwhile; ask again"
        raise BackendUnavailable(message)

    def _read(self, what: str, key: bytes) -> Message | None:
        request = messages.transaction(success=[messages.get(key)])
        return messages.first(self._ensemble.call(what, "Txn", request).message, 0)


def _number(value: bytes) -> int:
    try:
        return int(value)
    except ValueError as error:
        message = f"a stored number cannot be read: {value[:40]!r}"
        raise CorruptRecord(message) from error
