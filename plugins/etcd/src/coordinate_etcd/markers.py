"""Claims and records: read, judged, and written only if nothing that the judgement rests on has changed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from coordinate import _wire
from coordinate.errors import AlreadyDone, BackendUnavailable, CorruptRecord, StaleToken
from coordinate.types import Claim, MarkerRecord, MarkerState, MarkerView
from coordinate_etcd import messages
from coordinate_etcd.keys import after

if TYPE_CHECKING:
    from coordinate_etcd.ensemble import Ensemble, Reply
    from coordinate_etcd.keys import Keys
    from coordinate_etcd.messages import Message

_ROUNDS = 50
"""Attempts within one operation while others write the same keys; each means that somebody else made progress."""


class Markers:
    """The claims and records below one prefix."""

    def __init__(self, ensemble: Ensemble, keys: Keys) -> None:
        self._ensemble = ensemble
        self._keys = keys

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a token that is greater than the registered one, or is it with the same owner.

        Raises:
            StaleToken: with the registered token as ``floor``.
        """
        what, key, value = f"claim {scope!r}", self._keys.claim(scope), _wire.encode(claim)
        for _ in range(_ROUNDS):
            found = messages.first(self._read(what, messages.get(key)), 0)
            present = None if found is None else _claim(found)
            if present is not None and not _supersedes(claim, present):
                message = f"{what} with token {claim.token} refused: {present.token} is registered"
                raise StaleToken(message, present.token)
            unchanged = messages.modified(key, _revision(found))
            if self._write(what, [unchanged], messages.put(key, value)):
                return
        raise self._contended(what)

    def put(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record under the claim of its token.

        Raises:
            StaleToken: another token is claimed.
            AlreadyDone: the stored record is done and not this very one.
        """
        what, value = f"write a marker of {scope!r}", _wire.encode(record)
        claim, key = self._keys.claim(scope), self._keys.marker(scope, record.step, record.revision)
        for _ in range(_ROUNDS):
            reply = self._read(what, messages.get(claim), messages.get(key))
            claimed, found = messages.first(reply, 0), messages.first(reply, 1)
            registered = 0 if claimed is None else _claim(claimed).token
            if token != registered or claimed is None:
                message = f"{what} with token {token} refused: {registered} is registered"
                raise StaleToken(message, registered)
            if found is not None and bytes(found.value) == value:
                return
            if found is not None and done_in(bytes(found.value)) is not None:
                message = f"step {record.step!r} of {record.revision!r} is done already"
                raise AlreadyDone(message)
            if found is not None and _is_late(record, found):
                return
            unchanged = [messages.modified(claim, _revision(claimed)), messages.modified(key, _revision(found))]
            if self._write(what, unchanged, messages.put(key, value)):
                return
        raise self._contended(what)

    def view(self, scope: str) -> MarkerView:
        """Return the claim and the records at one revision; what cannot be read is left out."""
        start = self._keys.markers(scope)
        reading = messages.get(self._keys.claim(scope)), messages.get(start, after(start))
        reply = self._read(f"read the markers of {scope!r}", *reading)
        claimed = messages.first(reply, 0)
        records = []
        for found in messages.found(reply, 1):
            with contextlib.suppress(CorruptRecord):
                records.append(_wire.decode(MarkerRecord, bytes(found.value)))
        return MarkerView(None if claimed is None else _claim(claimed), tuple(records))

    def delete(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        what = f"delete a marker of {scope!r}"
        reply = self._send(
            what, messages.transaction(success=[messages.delete(self._keys.marker(scope, step, revision))])
        )
        # Sent twice and gone: the first one may have done it.
        return bool(reply.message.responses[0].response_delete_range.deleted) or reply.repeated

    def scopes(self) -> list[str]:
        """Return the scopes that have a claim or a record."""
        start = self._keys.scopes
        reply = self._read("list the scopes", messages.get(start, after(start), keys_only=True))
        names = {self._keys.scope_of(bytes(found.key)) for found in messages.found(reply, 0)}
        return sorted(name for name in names if name is not None)

    def ring(self, scope: str) -> None:
        """Write something for those who watch a scope to notice."""
        self._write(f"announce {scope!r}", [], messages.put(self._keys.bell(scope), b""))

    def probe(self) -> None:
        """Make one round trip with the rights that everything else needs."""
        self._read("ping", messages.get(self._keys.base))

    def _read(self, what: str, *reads: Message) -> Message:
        return self._send(what, messages.transaction(success=reads)).message

    def _write(self, what: str, unchanged: list[Message], write: Message) -> bool:
        return bool(self._send(what, messages.transaction(unchanged, [write])).message.succeeded)

    def _send(self, what: str, request: Message) -> Reply:
        return self._ensemble.call(what, "Txn", request)

    def _contended(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(f"{what} on {self._ensemble.url} failed: others wrote it all the time; ask again")


def _revision(found: Message | None) -> int:
    return 0 if found is None else int(found.mod_revision)


def _claim(found: Message) -> Claim:
    return _wire.decode(Claim, bytes(found.value))


def done_in(value: bytes) -> MarkerRecord | None:
    """Return a stored record if it says done."""
    try:
        record = _wire.decode(MarkerRecord, value)
    except CorruptRecord:
        return None
    return record if record.state is MarkerState.DONE else None


def _is_late(record: MarkerRecord, found: Message) -> bool:
    try:
        return record.late_for(_wire.decode(MarkerRecord, bytes(found.value)))
    except CorruptRecord:
        return False


def _supersedes(new: Claim, present: Claim) -> bool:
    repeated = new.token == present.token and new.owner.nonce == present.owner.nonce
    return new.token > present.token or repeated
