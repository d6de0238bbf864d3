"""One server: its open connections, each with what the server said of itself when it was last asked."""

from __future__ import annotations

import math
import os
import select
from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from coordinate._clock import SYSTEM
from coordinate.backends.redis.failures import DRIVER_ERRORS, NotReplicated
from coordinate.backends.redis.wires import Words, number_of, pack, request, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinate.backends.redis.scripts import Script
    from coordinate.backends.redis.wires import Address, Reply, Wire

SILENCE = 0.25
"""Seconds without a word after which a connection's server is asked anew who it is. No failover and back again is
faster, and a connection in use would have met the error that a demoted server answers with."""
_SPARE = 16
"""Connections kept open for the next request; more are opened while more threads ask at once."""
_PIPELINE = 64
"""Requests written before their replies are read: few enough that neither side's socket buffer fills up."""
_ONE_KEY = b"""
for _ = 2, table.remove(ARGV, 1) do
  KEYS[#KEYS + 1] = table.remove(ARGV, 1)
end
"""
"""Put in front of a script for a server to which a slot is under way: it refuses a request that *names* several keys
of which one does not exist. The key that is named brings the request here; the others are of the same slot."""


class Known(NamedTuple):
    """What a server said of itself.

    Args:
        incarnation: identity of its state; empty where the server hides it.
        until: server time in microseconds before which nobody new gets a lease.
        replicas: how many are connected; None where the server hides it.
        alone: records about it that its replicas may not have; before a new lease they must.
        wait: microseconds: no more than this is ever left until ``until``, unless the clock is set back.
        refusal: why its record could not be written; before a new lease it must.
        hidden: it refused to say any of this.
        longest: seconds: its record says that leases may be as long as this.
    """

    incarnation: bytes = b""
    until: int = 0
    replicas: int | None = None
    alone: tuple[bytes, ...] = ()
    wait: int = 0
    refusal: str = ""
    hidden: bool = False
    longest: float = 0.0


class Call(NamedTuple):
    """One call of a script.

    Args:
        place: one of its keys, which says where they all are.
        keys: all of them.
        args: what else the script is told.
    """

    place: bytes
    keys: Words
    args: Words


class Bundle(NamedTuple):
    """Calls that are made in one.

    Args:
        indexes: of the calls among all that were bundled.
        call: all of them.
    """

    indexes: Sequence[int]
    call: Call


def call(keys: Sequence[bytes], *args: bytes) -> Call:
    """Return a call of a script with at least one key."""
    return Call(keys[0], words(*keys), words(*args))


def joined(calls: Sequence[Call]) -> Call:
    """Return one call with the keys and arguments of all."""
    keys = Words(sum(each.keys.number for each in calls), b"".join([each.keys.data for each in calls]))
    args = Words(sum(each.args.number for each in calls), b"".join([each.args.data for each in calls]))
    return Call(calls[0].place, keys, args)


class Line:
    """One open connection, used by one thread at a time."""

    def __init__(self, wire: Wire, node: Node, opened_in: int) -> None:
        self.wire = wire
        self.node = node
        self.opened_in = opened_in
        self.known = Known()
        self.asked_at = -math.inf
        """When the last request was sent."""
        self.greeted_at = -math.inf
        """When the server was asked for what is `known`."""
        self.seen_at = -math.inf
        """When it was known last that this still holds. A reply tells of the time after its request was sent, not of
        the time at which somebody got round to reading it."""
        self.readable = select.poll()
        self.readable.register(number_of(wire), select.POLLIN)
        self.doubted = False
        self.asking = False
        """Whether scripts are asked to use keys that are only under way to this server; until `Node.put`."""
        self.unread = 0
        """Replies that are still to come; such a connection must never serve another request."""

    @property
    def silent(self) -> bool:
        """Return whether the server has said nothing for so long that `known` may be of an earlier life."""
        return SYSTEM.now() - self.seen_at > SILENCE

    @property
    def expected(self) -> bytes:
        """Return the incarnation that a request has to check, and then to `verify`; empty where that is not needed."""
        return self.known.incarnation if self.silent else b""

    def verify(self, expected: bytes) -> None:
        """Note that the last request has found the incarnation that was expected, if one was."""
        if expected:
            self.seen_at = self.asked_at

    def count_replicas(self) -> int | None:
        """Return how many replicas are connected, asked for not long ago also on a busy line; None if that is hidden.

        Raises:
            NotReplicated: the server has begun another life: what was written before may be lost.
        """
        if SYSTEM.now() - self.greeted_at > SILENCE:
            before = self.known.incarnation
            if self.node.ask_who(self).incarnation != before:
                message = "the server was replaced or has restarted meanwhile"
                raise NotReplicated(message)
        return self.known.replicas

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes] = ()) -> Reply:
        """Return a script's reply."""
        if self.asking and keys:
            return self._ask_for(script, call(keys, *args))
        tail = (b"%d" % len(keys), *keys, *args)
        try:
            return self.ask(b"EVALSHA", script.sha, *tail)
        except NoScriptError:
            return self.ask(b"EVAL", script.source, *tail)

    def evaluate(self, script: Script, prepared: Call) -> Reply:
        """Return a script's reply to a prepared call."""
        if self.asking:
            return self._ask_for(script, prepared)
        (answer,) = self.run_all(script, [prepared])
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _ask_for(self, script: Script, prepared: Call) -> Reply:
        """Ask for keys that are only under way to this server."""
        self._exchange(pack((b"ASKING",)))
        others = Words(prepared.keys.number - 1, prepared.keys.data[len(words(prepared.place).data) :])
        head = words(b"EVAL", _ONE_KEY + script.source, b"1", prepared.place, b"%d" % prepared.keys.number)
        return self._exchange(request(head, others, prepared.args))

    def run_all(self, script: Script, calls: Sequence[Call]) -> list[Reply | ResponseError]:
        """Return the replies to many calls, pipelined; an error in one of them takes its reply's place."""
        answers: list[Reply | ResponseError] = []
        for start in range(0, len(calls), _PIPELINE):
            answers += self._pipelined(script, calls[start : start + _PIPELINE])
        return [self._again(script, each, answer) for each, answer in zip(calls, answers, strict=True)]

    def _pipelined(self, script: Script, calls: Sequence[Call]) -> list[Reply | ResponseError]:
        requests = [_evaluation(b"EVALSHA", script.sha, each) for each in calls]
        self.unread += len(requests)
        self.asked_at = SYSTEM.now()
        self.wire.send_packed_command([b"".join(requests)], check_health=False)
        return [self._reply_or_error() for _ in requests]

    def _reply_or_error(self) -> Reply | ResponseError:
        try:
            return self._read()
        except ResponseError as error:
            return error

    def _again(self, script: Script, call: Call, answer: Reply | ResponseError) -> Reply | ResponseError:
        """Repeat a call that a server without the script has refused."""
        if not isinstance(answer, NoScriptError):
            return answer
        try:
            return self._exchange(_evaluation(b"EVAL", script.source, call))
        except ResponseError as error:
            return error

    def ask(self, *parts: bytes) -> Reply:
        """Return the reply to a plain command."""
        return self._exchange(pack(parts))

    def _exchange(self, packed: bytes) -> Reply:
        self.unread += 1
        self.asked_at = SYSTEM.now()
        self.wire.send_packed_command([packed], check_health=False)
        return self._read()

    def _read(self) -> Reply:
        try:
            reply = self.wire.read_response()
        except ResponseError as error:
            self.unread -= 1
            # A refusal may mean that the server is not what it was: it is asked again before the next use.
            self.doubted = self.doubted or not isinstance(error, NoScriptError)
            raise
        self.unread -= 1
        if self.asked_at - self.seen_at <= SILENCE:
            self.seen_at = self.asked_at
        return reply

    def confirm(self, replicas: int, timeout: float) -> None:
        """Wait until so many replicas have what was written on this connection.

        Raises:
            NotReplicated: fewer have confirmed it within ``timeout`` seconds.
        """
        if replicas <= 0:
            return
        confirmed = self.ask(b"WAIT", b"%d" % replicas, b"%d" % max(1, round(timeout * 1000)))
        if not isinstance(confirmed, int) or confirmed < replicas:
            message = f"{confirmed!r} of {replicas} replicas confirmed the write within {timeout:g} s"
            raise NotReplicated(message)


def _evaluation(command: bytes, script: bytes, call: Call) -> bytes:
    return request(words(command, script, b"%d" % call.keys.number), call.keys, call.args)


class Node:
    """One server. Any number of threads may talk to it at once; each conversation has a connection to itself.

    Args:
        address: where it is.
        greet: asks the server who it is, on a new connection and after a silence.
        identity: its name in a Cluster, which it keeps when it restarts; empty elsewhere.
    """

    def __init__(self, address: Address, greet: Callable[[Line], Known], identity: str = "") -> None:
        self.address = address
        self.identity = identity
        self._greet = greet
        self._era = 0
        """Connections opened in an earlier one are not kept."""
        self._spare: list[Line] = []
        self._pid = os.getpid()

    def take(self, *, greet: bool = True) -> Line:
        """Return a connection whose server is known; give it back with `put`, whatever happened.

        Without ``greet`` a server that was silent is not asked first: `Line.expected` is for the request to check.
        """
        if self._pid != os.getpid():
            # A forked child shares its parent's sockets: it must not write a byte to them.
            self._pid = os.getpid()
            self.close()
        line = self._find_spare() or Line(self.address.connect(), self, self._era)
        if line.silent and (greet or not line.known.incarnation):
            try:
                self.ask_who(line)
            except BaseException:
                line.wire.disconnect()
                raise
        return line

    def put(self, line: Line) -> None:
        """Keep a connection for the next conversation, unless a reply is outstanding.

        Also after an interrupt in the middle: the reply to one request must never answer another.
        """
        line.asking = False
        if line.unread:
            line.wire.disconnect()
            # A broken connection is rarely the only one: the server restarted or the way to it changed.
            self.close()
        elif len(self._spare) < _SPARE and line.opened_in == self._era:
            if line.doubted:
                line.seen_at = -math.inf
            line.doubted = False
            self._spare.append(line)
        else:
            line.wire.disconnect()

    def _find_spare(self) -> Line | None:
        while self._spare:
            try:
                line = self._spare.pop()
            except IndexError:  # another thread was faster
                break
            if _silent(line):
                return line
            line.wire.disconnect()
        return None

    def ask_who(self, line: Line) -> Known:
        """Ask the server of a connection who it is, now."""
        asked = SYSTEM.now()
        line.known = self._greet(line)
        line.greeted_at = line.seen_at = asked
        return line.known

    def close(self) -> None:
        """Close what is not in use; what is, is closed by its last user. Idempotent."""
        self._era += 1
        spare, self._spare = self._spare, []
        for line in spare:
            line.wire.disconnect()


def _silent(line: Line) -> bool:
    """Return whether the peer has neither closed nor said anything unasked."""
    try:
        # The kernel is asked first: the driver's own question costs several calls and an exception.
        return not line.readable.poll(0) or not line.wire.can_read(timeout=0)
    except DRIVER_ERRORS:
        return False
