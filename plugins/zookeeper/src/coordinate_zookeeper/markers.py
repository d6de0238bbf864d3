"""Markers: every change of a scope is one transaction that also writes the scope's node, at the version it was read.

So changes of one scope are serial, a write under a claim that was superseded fails as a whole, and one watch on the
scope's node tells of all of them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kazoo.exceptions import KazooException, NoNodeError

from coordinate import _wire
from coordinate.errors import AlreadyDone, CorruptRecord, StaleToken
from coordinate.types import MarkerRecord, MarkerState, MarkerView
from coordinate_zookeeper import asking
from coordinate_zookeeper.head import claim_in, written
from coordinate_zookeeper.nodes import make, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kazoo.client import TransactionRequest

    from coordinate.types import Claim
    from coordinate_zookeeper.nodes import Nodes
    from coordinate_zookeeper.session import Session
    from coordinate_zookeeper.sessions import Sessions


class Markers:
    """All marker operations of one process."""

    def __init__(self, nodes: Nodes, sessions: Sessions) -> None:
        self._nodes = nodes
        self._sessions = sessions

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a token if it supersedes the present one."""
        path, what = self._nodes.scope(scope), f"claim {scope!r}"
        for session in self._attempts(what):
            found = _read(session, what, path)
            if found is None:
                make(session, what, path)
                continue
            data, version = found
            present = claim_in(data)
            if present == claim:
                return  # as after a lost answer
            if present is not None and not _supersedes(claim, present):
                message = f"claim of {scope!r} with token {claim.token} refused: {present.token} is registered"
                raise StaleToken(message, present.token)
            if self._commit(session, what, _Change(path, _wire.encode(claim), version)):
                return

    def put(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record under the claimed token."""
        path, what = self._nodes.scope(scope), f"write a marker of {scope!r}"
        key = self._nodes.record(scope, record.step, record.revision)
        data = _wire.encode(record)
        for session in self._attempts(what):
            found = _read(session, what, path)
            present = claim_in(found[0]) if found is not None else None
            claimed = present.token if present is not None else 0
            if found is None or token != claimed:
                message = f"marker of {scope!r} with token {token} refused: {claimed} is registered"
                raise StaleToken(message, claimed)
            (stored,) = session.ask(what, [asking.get(key)])
            missing = isinstance(stored, NoNodeError)
            if not missing and _is_there(record, stored[0]):
                return
            head, version = found
            head = head if present is None else written(present, record, version)
            if self._commit(session, what, _Change(path, head, version, key, data, new=missing)):
                return

    def view(self, scope: str) -> MarkerView:
        """Read the claim, then the records."""
        path, what = self._nodes.scope(scope), f"read the markers of {scope!r}"
        session = self._sessions.any()
        _, head, children = session.ask(what, [asking.sync(path), asking.get(path), asking.children(path)])
        if isinstance(head, NoNodeError):
            return MarkerView(None)
        keys = [] if isinstance(children, NoNodeError) else [f"{path}/{child}" for child in sorted(children)]
        answers = session.ask(what, [asking.get(key) for key in keys])
        records = []
        for key, answer in zip(keys, answers, strict=True):
            record = None if isinstance(answer, NoNodeError) else _record(answer[0])
            if record is not None and self._nodes.record(scope, record.step, record.revision) == key:
                records.append(record)
        return MarkerView(claim_in(head[0]), tuple(records))

    def delete(self, scope: str, step: str, revision: str) -> bool:
        """Remove a record, whoever leads."""
        path, what = self._nodes.scope(scope), f"delete a marker of {scope!r}"
        key = self._nodes.record(scope, step, revision)
        for session in self._attempts(what):
            found = _read(session, what, path)
            if found is None:
                return False
            (stat,) = session.ask(what, [asking.exists(key)])
            if stat is None:
                return False
            if self._commit(session, what, _Change(path, *found, key)):
                return True
        return False  # unreachable: the attempts end with an error

    def scopes(self) -> list[str]:
        """Return the scopes with a claim or a record; a bare node was only announced."""
        session, parent = self._sessions.any(), self._nodes.markers
        what = "list the scopes"
        _, children = session.ask(what, [asking.sync(parent), asking.children(parent)])
        names = [] if isinstance(children, NoNodeError) else sorted(map(name_of, children))
        stats = session.ask(what, [asking.exists(self._nodes.scope(name)) for name in names])
        return [name for name, stat in zip(names, stats, strict=True) if stat and (stat.dataLength or stat.numChildren)]

    def announce(self, scope: str) -> None:
        """Write the scope's node as it is."""
        path, what = self._nodes.scope(scope), f"announce {scope!r}"
        for session in self._attempts(what):
            found = _read(session, what, path)
            if found is None:
                make(session, what, path)  # whoever watches for the node has been told by that
                return
            if self._commit(session, what, _Change(path, *found)):
                return

    def _attempts(self, what: str) -> Iterator[Session]:
        """Yield a session for each attempt: one fails only because somebody else's has succeeded."""
        session = self._sessions.any()
        ends = time.monotonic() + session.address.timeout
        while time.monotonic() < ends:
            yield session
        raise session.failure(what, "others change the scope all the time")

    @staticmethod
    def _commit(session: Session, what: str, change: _Change) -> bool:
        """Carry out a change; False if the scope has changed since it was read."""
        (results,) = session.ask(what, [lambda driver: change.add_to(driver.transaction()).commit_async()])
        return not any(isinstance(result, KazooException) for result in results)


class _Change:
    """A transaction on a scope: its node, and a record that is written or, without data, removed."""

    def __init__(
        self, path: str, head: bytes, version: int, key: str = "", data: bytes = b"", *, new: bool = False
    ) -> None:
        self._path = path
        self._head = head
        self._version = version
        self._key = key
        self._data = data
        self._new = new

    def add_to(self, transaction: TransactionRequest) -> TransactionRequest:
        """Return the transaction with this change in it."""
        transaction.set_data(self._path, self._head, self._version)
        if self._key and not self._data:
            transaction.delete(self._key)
        elif self._key and self._new:
            transaction.create(self._key, self._data)
        elif self._key:
            transaction.set_data(self._key, self._data)
        return transaction


def _read(session: Session, what: str, path: str) -> tuple[bytes, int] | None:
    """Return data and version of a scope's node as the leader of the ensemble knows them; None: there is none."""
    _, answer = session.ask(what, [asking.sync(path), asking.get(path)])
    if isinstance(answer, NoNodeError):
        return None
    data, stat = answer
    return data, stat.version


def _record(data: bytes) -> MarkerRecord | None:
    """Return a record; None for a damaged one."""
    try:
        return _wire.decode(MarkerRecord, data)
    except CorruptRecord:
        return None


def _is_there(record: MarkerRecord, data: bytes) -> bool:
    """Return whether that very record is stored, or a later one that it must not replace.

    Raises:
        AlreadyDone: another one is, and it says done.
        CorruptRecord: it cannot be understood; it may say done in a way that this version does not know.
    """
    stored = _wire.decode(MarkerRecord, data)
    if stored == record:
        return True
    if stored.state is MarkerState.DONE:
        message = f"step {record.step!r} of {record.revision!r} is done already"
        raise AlreadyDone(message)
    return record.late_for(stored)


def _supersedes(new: Claim, present: Claim) -> bool:
    repeated = new.token == present.token and new.owner.nonce == present.owner.nonce
    return new.token > present.token or repeated
