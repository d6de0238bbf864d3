"""Server leases: one for each length of lease in this process, kept alive by the renewals that the core asks for.

A server lease is a little longer than the leases that hang on it (by a second at most, etcd counts whole ones), so
that most grants need no request of their own for it. It is kept alive only by `Sessions.extend`, so by a process that
renews something: no thread does it in the name of one that hangs.

A keepalive alone proves little. etcd (before 3.5.13 at least) lets a deposed leader answer it that does not know its
successor yet. So every keepalive is followed by a request that needs a quorum, and counts only if both answers are of
the same raft term: then the leader that extended the lease was still the leader afterwards.

What one holder no longer renews must not live on because its neighbours renew theirs: each key is noted with the time
until which somebody here may believe in it, and removed at the first keepalive after that.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import BackendUnavailable
from coordinate_etcd.failures import LeaseMissing
from coordinate_etcd.loader import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coordinate._clock import Clock
    from coordinate_etcd.ensemble import Ensemble, Reply
    from coordinate_etcd.messages import Message

_etcd = load()
_ROUNDS = 3
"""Keepalives tried within one operation when the leader changes in between."""


class Note(NamedTuple):
    """A key that hangs, or may hang, on one of our server leases."""

    session: int
    until: float
    """The instant on our clock after which nobody here believes in it."""
    revision: int
    """What created it; 0 while we do not know."""


class Session:
    """One server lease.

    Args:
        number: its id.
        length: its ttl in whole seconds.
        until: an instant on our clock before which it is known to live.
    """

    def __init__(self, number: int, length: int, until: float) -> None:
        self.number = number
        self.length = length
        self.until = until


class Sessions:
    """The server leases of one backend, and what hangs on them."""

    def __init__(self, ensemble: Ensemble, clock: Clock, probe: Message, sweep: Callable[[], None]) -> None:
        self._ensemble = ensemble
        self._clock = clock
        self._probe = probe
        self._sweep = sweep
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._by_length: dict[int, Session] = {}
        self._notes: dict[tuple[bytes, str], Note] = {}

    def fit(self, what: str, ttl: float) -> Session:
        """Return a server lease that is sure to live for ``ttl`` seconds from now.

        Raises:
            BackendUnavailable: none could be had.
        """
        length = math.floor(ttl) + 1
        session = self._by_length.get(length)
        if session is not None and session.until >= self._clock.now() + ttl:
            return session
        with self._making:  # one of many threads asks, the others find its answer
            session = self._by_length.get(length)
            if session is not None and session.until < self._clock.now() + ttl:
                alive, _ = self.extend(what, {session.number}, self._probe)
                session = session if session.number in alive else None
                # A process that only waits keeps nothing alive that it does not believe in, either.
                self._sweep()
            if session is None:
                session = self._by_length[length] = self._open(what, length)
            return session

    def _open(self, what: str, length: int) -> Session:
        sent = self._clock.now()
        answer = self._ensemble.call(what, "LeaseGrant", _etcd.LeaseGrantRequest(TTL=length)).message
        return Session(answer.ID, answer.TTL, sent + answer.TTL)

    def discard(self, session: Session) -> None:
        """Never use a server lease again: it is no more."""
        with self._lock:
            for length, known in list(self._by_length.items()):
                if known is session:
                    del self._by_length[length]

    def extend(self, what: str, numbers: Iterable[int], reading: Message) -> tuple[frozenset[int], Reply]:
        """Keep server leases alive; return those that are, and what was read afterwards.

        Each that is returned lives for its whole length from before this call.

        Raises:
            BackendUnavailable: no answer, or leaders that changed all the time.
        """
        wanted = sorted(set(numbers))
        for _ in range(_ROUNDS):
            sent = self._clock.now()
            beats = [(number, self._beat(what, number)) for number in wanted]
            reply = self._ensemble.call(what, "Txn", reading)
            term = reply.message.header.raft_term
            if all(beat is None or beat.header.raft_term == term for _, beat in beats):
                alive = frozenset(number for number, beat in beats if beat is not None)
                self._note_lives(sent, set(wanted) - alive, alive)
                return alive, reply
        message = f"{what} on {self._ensemble.url} failed: the leader changed several times; asking again is safe"
        raise BackendUnavailable(message)

    def _beat(self, what: str, number: int) -> Message | None:
        try:
            answer = self._ensemble.call(what, "LeaseKeepAlive", _etcd.LeaseKeepAliveRequest(ID=number)).message
        except LeaseMissing:
            return None
        return answer if answer.TTL > 0 else None  # 0 is how a stream says that there is no such lease

    def _note_lives(self, sent: float, dead: set[int], alive: frozenset[int]) -> None:
        with self._lock:
            for length, session in list(self._by_length.items()):
                if session.number in alive:
                    session.until = max(session.until, sent + session.length)
                elif session.number in dead:
                    del self._by_length[length]
            self._notes = {key: note for key, note in self._notes.items() if note.session not in dead}

    # What hangs on them

    def note(self, key: bytes, nonce: str, note: Note) -> None:
        """Remember that a key may hang on a server lease."""
        with self._lock:
            self._notes[key, nonce] = note

    def noted(self, key: bytes, nonce: str) -> Note | None:
        """Return what is remembered."""
        return self._notes.get((key, nonce))

    def forget(self, key: bytes, nonce: str) -> None:
        """Forget a key that is gone, or was never made."""
        with self._lock:
            self._notes.pop((key, nonce), None)

    def stale(self) -> list[tuple[bytes, str, Note]]:
        """Return keys that nobody here believes in any more."""
        now = self._clock.now()
        with self._lock:
            return [(key, nonce, note) for (key, nonce), note in self._notes.items() if note.until < now]

    def idle(self) -> list[int]:
        """Return server leases on which nothing hangs, and use them no more."""
        with self._lock:
            used = {note.session for note in self._notes.values()}
            found = {length: session for length, session in self._by_length.items() if session.number not in used}
            for length in found:
                del self._by_length[length]
            return [session.number for session in found.values()]
