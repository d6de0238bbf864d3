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
from typing import TYPE_CHECKING, cast

from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from coordinate.backends.redis import scripts
from coordinate.backends.redis.failures import NotReplicated
from coordinate.backends.redis.node import Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.backends.redis.keys import Keys
    from coordinate.backends.redis.node import Line, Node

log = logging.getLogger("coordinate")

DEFAULT_LAG = 10
"""Seconds for which an isolated primary accepts writes by default (``min-replicas-max-lag``)."""
_RECORD_PATIENCE = 1.0
_OFF = b"off"


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
        """Whether a server refuses to say what quarantine needs."""

    @property
    def on(self) -> bool:
        """Return whether a server that lost its memory is recognised and waited out."""
        return self._mode != _OFF and not self.hidden

    def allow(self, ttl: float) -> bool:
        """Note a lease length; True if it is longer than any before, so that connections have to be greeted again."""
        if ttl <= self._longest:
            return False
        self._longest = ttl
        return True

    def greeter(self, tag_of: Callable[[Node], str]) -> Callable[[Line], Known]:
        """Return what asks the server of a connection; ``tag_of`` says which keys live there."""

        def greet(line: Line) -> Known:
            return self._greet(line, tag_of(line.node))

        return greet

    def _greet(self, line: Line, tag: str) -> Known:
        if self.hidden:
            return Known()
        key = self._keys.incarnation(tag)
        try:
            answer = self._ask(line, key, b"")
            if answer == b"LAG":
                answer = self._ask(line, key, b"%d" % _lag(line))
        except ReadOnlyError:
            raise
        except ResponseError as error:
            if not _is_hidden(error):
                raise
            self.hidden = True
            log.warning(
                "the server hides its INFO (%s): after a failover or restart two owners may hold one lease for up to"
                " its ttl; allow the command +info to have new owners wait",
                error,
            )
            return Known()
        incarnation, until, replicas, written = cast("tuple[bytes, bytes, int, int]", answer)
        if written and replicas:
            _spread(line, replicas)
        known = Known(incarnation, int(until), replicas)
        if written and known.until:
            log.warning("%s has another incarnation: new owners of leases wait", line.node.address.place)
        return known

    def _ask(self, line: Line, key: bytes, lag: bytes) -> object:
        return line.run(scripts.GREET, (key,), (self._mode, b"%d" % round(self._longest * 1000), lag))


def _lag(line: Line) -> int:
    try:
        reply = cast("list[bytes]", line.ask(b"CONFIG", b"GET", b"min-replicas-max-lag"))
        # 0 switches the check off: then nothing bounds how long an isolated primary goes on, as by default.
        return int(reply[1]) or DEFAULT_LAG
    except (ResponseError, IndexError, ValueError):
        return DEFAULT_LAG


def _spread(line: Line, replicas: int) -> None:
    """Give the replicas a chance to learn the record before the first grant: one of them may be promoted next."""
    try:
        # Less than the socket's own timeout: a replica that hangs must not look like a primary that does.
        line.confirm(replicas, min(_RECORD_PATIENCE, (line.wire.socket_timeout or math.inf) / 2))
    except NotReplicated as error:
        log.warning("%s: replicas do not know the present incarnation yet: %s", line.node.address.place, error)


def _is_hidden(error: ResponseError) -> bool:
    # Redis 6 and 7, and the hosted ones, word it differently when a script may not call INFO.
    said = str(error).lower()
    words = ("unknown", "not allowed", "can't run", "permission")
    return isinstance(error, NoPermissionError) or any(word in said for word in words)
