"""The line of waiters of a lease: each watches the one before it, the first one watches the lease itself.

So the end of a lease wakes one waiter. A place in the line decides about wake-ups, never about ownership: who asks
first for a free lease gets it. Places hang on their process's server lease; a dead waiter's vanishes, which wakes the
one behind it. A waiter also looks for itself now and then, which keeps its place alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.errors import BackendUnavailable
from coordinate.types import Granted, Held, LeaseRecord, Owner, Topic
from coordinate_etcd import messages
from coordinate_etcd.failures import LeaseMissing
from coordinate_etcd.keys import after
from coordinate_etcd.sessions import Note

if TYPE_CHECKING:
    from coordinate._clock import Clock
    from coordinate_etcd.ensemble import Ensemble
    from coordinate_etcd.keys import Keys
    from coordinate_etcd.leases import Leases
    from coordinate_etcd.watch import EtcdWatch

_ROUNDS = 20
"""Attempts within one operation while the lease changes hands."""
_LOOK_AGAIN = 2 / 3
"""Part of its ttl after which a waiter looks for itself; its place lives for all of it."""


class Line:
    """Waiting for leases of one namespace."""

    def __init__(self, ensemble: Ensemble, keys: Keys, clock: Clock, leases: Leases) -> None:
        self._ensemble = ensemble
        self._keys = keys
        self._clock = clock
        self._leases = leases

    def acquire(self, name: str, owner: Owner, ttl: float, floor: int, watch: EtcdWatch) -> Granted | Held:
        """Grant the lease, or make sure that the watch reports the owner's turn.

        Raises:
            BackendUnavailable: no usable answer.
        """
        place, topic = self._keys.place(name, owner.nonce), Topic("lease", name, owner.nonce)
        for _ in range(_ROUNDS):
            if self._may_be_free(name, topic, watch):
                noted = self._leases.sessions.noted(place, owner.nonce) is not None
                answer = self._leases.acquire(name, owner, ttl, floor, place if noted else b"")
                if isinstance(answer, Granted):
                    self._leases.sessions.forget(place, owner.nonce)
                    watch.remove(topic)
                    return answer
            held = self._stand(name, owner, ttl, watch)
            if held is not None:
                return held
            watch.remove(topic)
        message = f"acquire {name!r} on {self._ensemble.url} failed: it changed hands all the time; ask again"
        raise BackendUnavailable(message)

    def _may_be_free(self, name: str, topic: Topic, watch: EtcdWatch) -> bool:
        """Return whether asking for the lease is more promising than looking first."""
        followed = watch.followed(topic)
        return followed is None or (followed.fired and followed.key == self._keys.lease(name))

    def _stand(self, name: str, owner: Owner, ttl: float, watch: EtcdWatch) -> Held | None:
        """Stand in line and follow whoever is before us; None: nobody holds the lease now."""
        what = f"wait for {name!r}"
        key, line = self._keys.lease(name), self._keys.line(name)
        place = self._keys.place(name, owner.nonce)
        created = self._take_place(what, place, owner, ttl)
        before = messages.newest_before(line, after(line), created)
        request = messages.transaction([messages.created(place, created)], [messages.get(key), before])
        reply = self._ensemble.call(what, "Txn", request).message
        if not reply.succeeded:  # the place is gone with its server lease
            self._leases.sessions.forget(place, owner.nonce)
            return None
        holder, ahead = messages.first(reply, 0), messages.first(reply, 1)
        if holder is None:
            return None
        target, then = (key, b"") if ahead is None else (bytes(ahead.key), key)
        watch.follow(Topic("lease", name, owner.nonce), target, reply.header.revision, then)
        record: LeaseRecord = self._leases.record(holder)
        return Held(record, min(record.ttl, ttl * _LOOK_AGAIN))

    def _take_place(self, what: str, place: bytes, owner: Owner, ttl: float) -> int:
        """Return the revision of our place in line; make one if there is none, or if its server lease is no more."""
        sessions = self._leases.sessions
        session = sessions.fit(what, ttl)
        note = sessions.noted(place, owner.nonce)
        until = self._clock.now() + 2 * ttl
        if note is not None and note.revision and note.session == session.number:
            sessions.note(place, owner.nonce, Note(session.number, until, note.revision))
            return note.revision
        sessions.note(place, owner.nonce, Note(session.number, until, 0))
        write = [messages.put(place, b"", session.number), messages.get(place, keys_only=True)]
        try:
            reply = self._ensemble.call(what, "Txn", messages.transaction(success=write)).message
        except LeaseMissing as error:
            sessions.discard(session)
            message = f"{what} on {self._ensemble.url} failed: {error}; asking again gets a new server lease"
            raise BackendUnavailable(message) from error
        created = int(messages.found(reply, 1)[0].create_revision)
        sessions.note(place, owner.nonce, Note(session.number, until, created))
        return created

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line; whoever stood behind follows somebody else then, or takes the lease."""
        self.leave(name, owner.nonce)

    def leave(self, name: str, nonce: str) -> None:
        """Do so for a nonce."""
        place = self._keys.place(name, nonce)
        if self._leases.sessions.noted(place, nonce) is None:
            return
        request = messages.transaction(success=[messages.delete(place)])
        self._ensemble.call(f"leave the line for {name!r}", "Txn", request)
        self._leases.sessions.forget(place, nonce)
