"""Which life of a server this is, and how long nobody new gets a lease after it has lost its memory.

A failover or a restart may lose the newest leases, while their holders still believe in them. A server's
*incarnation* (its run id and its replication id) then is another one. One record per namespace and server notes it;
whoever connects first to a server with another incarnation writes down until when new owners are refused: the
longest lease in use, plus the time for which an isolated primary may have gone on granting, plus a second. Present
holders renew, and re-assert what was lost, meanwhile.

========== ====================================================================================
``auto``   no record: a first use, nobody waits. A server that restarts *empty* forgets its leases
``strict`` no record: wait until the server has been up for that long, too
``off``    never wait: after a failover two owners may hold one lease until the first notices
========== ====================================================================================

The technique is the "delayed restart" of the Redlock discussion, done by itself and only when it is needed.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple, cast

from redis.exceptions import AskError, MovedError, NoPermissionError, ReadOnlyError, ResponseError

from coordinate.backends.redis import scripts
from coordinate.backends.redis.failures import is_momentary
from coordinate.backends.redis.node import Known, call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinate.backends.redis.keys import Keys
    from coordinate.backends.redis.node import Line, Node
    from coordinate.backends.redis.wires import Reply

log = logging.getLogger("coordinate")

DEFAULT_LAG = 10
"""Seconds for which an isolated primary accepts writes by default (``min-replicas-max-lag``)."""
_RECORD_PATIENCE = 1.0
_OFF = b"off"
_NOT_IN_SCRIPTS = ("not allowed from script", "called from")
"""Hosted servers forbid INFO to scripts, or do not know it there; versions word it differently."""
_FORBIDDEN = ("unknown command", "executing the script can't run", "permission")
_NEWS = (b"LAG", b"NEW")
"""What a record that has to be written is called, in the order in which it is: see ``lua/greet.lua``."""


class _Note(NamedTuple):
    """What one record says: `Known`, whether this was news, and whether the replicas may lack it."""

    key: bytes
    incarnation: bytes
    until: bytes
    replicas: int
    written: int
    alone: int
    wait: bytes
    refusal: bytes


class Census:
    """Asks servers for their incarnation, for one backend.

    Args:
        keys: names of the records.
        mode: ``auto``, ``strict`` or ``off``.
    """

    def __init__(self, keys: Keys, mode: str) -> None:
        self._keys = keys
        self._mode = mode.encode()
        self._longest = 0.0
        self.hidden = False
        """Whether a server refused to say what quarantine needs, when it was last asked: each new connection asks."""

    @property
    def on(self) -> bool:
        """Return whether a server that lost its memory is recognised and waited out."""
        return self._mode != _OFF and not self.hidden

    def allow(self, ttl: float) -> None:
        """Note that leases may be this long: connections that are opened from now on tell their servers at once."""
        self._longest = max(self._longest, ttl)

    def prepare(self, line: Line, ttl: float) -> None:
        """See to it that whoever succeeds the server has its record, before a lease of this length counts on that.

        Raises:
            NotReplicated: a replica that is connected did not take it: promoted, it would let new owners in.
            redis.ResponseError: the server itself cannot take it.
        """
        if line.known.longest < ttl or line.known.refusal or (line.known.hidden and not self.hidden):
            # What another connection has noted, or is about to, says nothing about this one.
            line.node.ask_who(line)
        if line.known.refusal:
            # Its memory may be enough again for the lease, a moment later, but then nobody would know of it.
            raise ResponseError(line.known.refusal)
        if line.known.alone:
            self._spread(line)

    def _spread(self, line: Line) -> None:
        # WAIT is about this connection's own writes.
        written = [key for key in line.known.alone if _sent(line, b"HSET", key, b"alone", b"1")]
        if not written:
            # Their slots are just leaving this server, which knows them again by their new place in the next greeting.
            line.known = line.known._replace(alone=())
            line.doubted = True
            return
        # Less than the socket's own timeout: a replica that hangs must not look like a primary that does.
        line.confirm(line.known.replicas or 0, min(_RECORD_PATIENCE, (line.wire.socket_timeout or math.inf) / 2))
        for key in written:
            _sent(line, b"HDEL", key, b"alone")
        line.known = line.known._replace(alone=())

    def greeter(self, tags_of: Callable[[Node], Sequence[str]]) -> Callable[[Line], Known]:
        """Return what asks the server of a connection; ``tags_of`` says where the records about it are."""

        def greet(line: Line) -> Known:
            return self._greet(line, tags_of(line.node))

        return greet

    def overtaken(self, line: Line, milliseconds: int) -> bool:
        """Return whether more is left of a wait than there ever was: the server's clock was set back."""
        return (milliseconds - 1) * 1000 > line.known.wait

    def _greet(self, line: Line, tags: Sequence[str]) -> Known:
        if self.hidden and line.known.hidden:
            return line.known
        longest = self._longest
        try:
            notes = self._look(line, [self._keys.incarnation(tag) for tag in tags], longest)
        except ReadOnlyError:
            raise
        except ResponseError as error:
            if not _hides_info(line, error):
                raise
            self._note_hidden(error)
            return Known(hidden=True, longest=math.inf)
        self.hidden = False
        known = Known(
            notes[0].incarnation,
            max(int(note.until) for note in notes),
            notes[0].replicas,
            tuple(note.key for note in notes if note.alone),
            max(int(note.wait) for note in notes),
            next((note.refusal.decode(errors="replace") for note in notes if note.refusal), ""),
            longest=longest,
        )
        if known.until and any(note.written for note in notes):
            log.warning("%s has another incarnation: new owners of leases wait", line.node.address.place)
        return known

    def _note_hidden(self, error: ResponseError) -> None:
        if not self.hidden:
            self.hidden = True
            log.warning(
                "the server hides its INFO (%s): after a failover or restart two owners may hold one lease for up to"
                " its ttl; allow the command +info to have new owners wait",
                error,
            )

    def _look(self, line: Line, keys: Sequence[bytes], longest: float) -> list[_Note]:
        """Return what the records say, after noting in them what is new."""
        words = (self._mode, b"%d" % round(longest * 1000))
        notes = self._ask(line, keys, words, b"", b"")
        lag = b""
        for word in _NEWS:
            news = [key for key, note in notes.items() if note == word]
            if news:
                lag = lag or b"%d" % _lag(line)
                until = max((int(note.until) for note in notes.values() if isinstance(note, _Note)), default=None)
                notes |= self._ask(line, news, words, lag, b"" if until is None else b"%d" % until)
        found = [note for note in notes.values() if isinstance(note, _Note)]
        return found or [_note(b"", line.run(scripts.GREET, (), (_OFF, b"0", b"", b"", b"")))]

    @staticmethod
    def _ask(
        line: Line, keys: Sequence[bytes], words: tuple[bytes, bytes], lag: bytes, until: bytes
    ) -> dict[bytes, _Note | bytes]:
        args = (*words, lag, line.node.identity.encode(), until)
        answers = line.run_all(scripts.GREET, [call((key,), *args) for key in keys])
        notes: dict[bytes, _Note | bytes] = {}
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, AskError) and not isinstance(answer, MovedError):
                # A record whose slot is just moving away. It is found where it goes, as one that came along.
                continue
            if isinstance(answer, ResponseError):
                raise answer
            notes[key] = answer if isinstance(answer, bytes) else _note(key, answer)
        return notes


def _note(key: bytes, answer: Reply) -> _Note:
    return _Note(key, *cast("tuple[bytes, bytes, int, int, int, bytes, bytes]", answer))


def _sent(line: Line, command: bytes, key: bytes, *words: bytes) -> bool:
    """Write to a record; False where its slot is just moving away: nobody may follow it with another key's request."""
    try:
        line.ask(command, key, *words)
    except AskError as error:
        if isinstance(error, MovedError):
            raise
        return False
    return True


def _lag(line: Line) -> int:
    try:
        reply = cast("list[bytes]", line.ask(b"CONFIG", b"GET", b"min-replicas-max-lag"))
        # 0 switches the check off: then nothing bounds how long an isolated primary goes on, as by default.
        return int(reply[1]) or DEFAULT_LAG
    except ResponseError as error:
        if is_momentary(error):
            # A guess would be noted, and be too short where more is configured.
            raise
        return DEFAULT_LAG
    except (IndexError, ValueError):
        return DEFAULT_LAG


def _hides_info(line: Line, error: ResponseError) -> bool:
    """Return whether a greeting failed because INFO is forbidden; not for want of memory or of another right."""
    said = str(error).lower()
    if any(word in said for word in _NOT_IN_SCRIPTS):
        return True
    if not (isinstance(error, NoPermissionError) or any(word in said for word in _FORBIDDEN)):
        return False
    try:
        # The error of a script does not say which command it was that it may not call.
        line.ask(b"INFO", b"replication")
    except ResponseError as refusal:
        said = str(refusal).lower()
        return isinstance(refusal, NoPermissionError) or any(word in said for word in _FORBIDDEN)
    return False
