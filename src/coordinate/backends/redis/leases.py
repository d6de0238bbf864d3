"""Leases on Redis: granting, renewing and giving back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from coordinate import _wire
from coordinate._clock import SYSTEM
from coordinate.backends.redis import scripts
from coordinate.backends.redis.beliefs import Belief, Beliefs, Proof
from coordinate.backends.redis.failures import NotReplicated
from coordinate.backends.redis.node import call
from coordinate.backends.redis.replicas import confirm_grant
from coordinate.backends.redis.rounds import Round, Rounds
from coordinate.errors import BackendUnavailable, CoordinateError, CorruptRecord
from coordinate.types import (
    AcquireAnswer,
    Gone,
    Grant,
    Granted,
    Held,
    LeaseRecord,
    LossReason,
    Owner,
    Quarantined,
    RenewAnswer,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.backends.redis.incarnation import Census
    from coordinate.backends.redis.keys import Keys
    from coordinate.backends.redis.node import Call, Line
    from coordinate.backends.redis.scripts import Script
    from coordinate.backends.redis.topology import Topology
    from coordinate.backends.redis.wires import Reply

_GONE = {0: LossReason.EXPIRED, -1: LossReason.TAKEN, -2: LossReason.BROKEN}
_VANISHED = Gone(LossReason.EXPIRED)


class Asking(NamedTuple):
    """How a lease is asked for; see `Backend.acquire`.

    Args:
        floor: the token has to be greater.
        channel: to be told one's turn on; empty for not waiting in line.
        unled: nobody can have lost it, as nobody ever led.
    """

    floor: int
    channel: bytes
    unled: bool


class Leases:
    """The lease half of `RedisBackend`; its methods promise what those of the port do."""

    def __init__(self, server: Topology, keys: Keys, census: Census) -> None:
        self._server = server
        self._keys = keys
        self._census = census
        self._beliefs = Beliefs(SYSTEM.now)
        self._rounds = Rounds(self._prepared)

    def acquire(self, name: str, owner: Owner, ttl: float, asking: Asking) -> AcquireAnswer:
        """Grant, or say why not."""
        self._census.allow(ttl)
        keys, milliseconds = self._keys.lease(name), b"%d" % max(1, round(ttl * 1000))
        args = (owner.nonce.encode(), milliseconds, b"%d" % asking.floor, _wire.encode(owner), asking.channel)
        sent = SYSTEM.now()

        def ask(line: Line) -> Reply:
            self._census.prepare(line, ttl)
            until = b"0" if asking.unled else b"%d" % line.known.until
            expected = line.expected
            reply = line.run(scripts.ACQUIRE, keys, (*args, until, expected))
            if reply != []:
                line.verify(expected)
            return reply

        def talk(line: Line) -> tuple[Reply, bytes]:
            reply = ask(line)
            if reply == [] or self._set_back(line, reply):
                line.node.ask_who(line)
                reply = ask(line)
            if isinstance(reply, bytes):
                self._spread_grant(line, name)
            return reply, line.known.incarnation

        # A waiter whose turn has come asks after a long silence: its request looks at the server's life itself.
        greet = self._server.options.durability != "none"
        reply, incarnation = self._server.converse("acquire", keys.lease, talk, greet=greet)
        if isinstance(reply, bytes):
            token, _, granted = reply.partition(b" ")
            grant = Grant(name, int(token), owner.nonce, int(granted) / 1000)
            self._beliefs.note(owner.nonce, Belief(grant.token, owner, grant.ttl, Proof(incarnation, sent)))
            return Granted(grant)
        return _refusal(name, cast("list[Reply]", reply))

    def _set_back(self, line: Line, reply: Reply) -> bool:
        """Return whether an answer shows that the server's clock was set back since it said until when to wait."""
        return isinstance(reply, list) and len(reply) == 1 and self._census.overtaken(line, cast(int, reply[0]))

    def _spread_grant(self, line: Line, name: str) -> None:
        """Wait for the replicas that a grant is to survive with.

        Without them it stands, for the owner that asks again, or until it expires. A request that takes it back might
        arrive late, and end what that owner was granted next.
        """
        try:
            self._confirm(line)
        except NotReplicated as error:
            message = f"lease {name!r} on {self._server.url} not granted: {error}; asking again is safe"
            raise BackendUnavailable(message) from error

    def _confirm(self, line: Line) -> None:
        confirm_grant(line, self._server.options)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Extend leases, many in one request; restore those that a server lost with its memory."""
        sent = SYSTEM.now()
        answers = self._answers("renew", scripts.RENEW, self._rounds.find(grants), sent)
        if _VANISHED in answers:
            self._restore(grants, [index for index, answer in enumerate(answers) if answer == _VANISHED], answers)
        return answers

    def _prepared(self, grants: Sequence[Grant]) -> Round:
        """Return the requests that renew leases."""
        return self._round(grants, [self._renewal(grant) for grant in grants])

    def _round(self, grants: Sequence[Grant], calls: Sequence[Call]) -> Round:
        return Round(grants, self._server.bundles(calls), [self._beliefs.find(grant) for grant in grants])

    def _renewal(self, grant: Grant) -> Call:
        keys = self._keys.lease(grant.name)
        return call((keys.lease, keys.token), grant.nonce.encode(), b"%d" % grant.token)

    def _answers(self, what: str, script: Script, asked: Round, sent: float) -> list[RenewAnswer]:
        """Return what a script that speaks only of exceptions means for each grant."""
        answers: list[RenewAnswer] = list(asked.renewed)
        for number, reply, known in self._server.run_bundles(what, script, asked.bundles, self._confirm):
            indexes = asked.bundles[number].indexes
            if isinstance(reply, CoordinateError) or known is None:
                unknown = Unknown(str(reply))
                for index in indexes:
                    answers[index] = unknown
                continue
            exceptions = {indexes[position - 1]: said for position, said in cast("list[tuple[int, Reply]]", reply)}
            for index, said in exceptions.items():
                answers[index] = _exception(said)
            asked.prove(number, Proof(known.incarnation, sent), exceptions)
        return answers

    def _restore(self, grants: Sequence[Grant], vanished: Sequence[int], answers: list[RenewAnswer]) -> None:
        """Restore what has vanished with a server's memory: its holder's time is not over, nobody came after it."""
        calls: dict[int, Call] = {}
        for index in vanished:
            try:
                assertion = self._assertion(grants[index])
            except BackendUnavailable as error:
                # Whether it can be restored is not known yet; that it is lost, neither.
                answers[index] = Unknown(str(error))
                continue
            if assertion is not None:
                calls[index] = assertion
        sent = SYSTEM.now()
        asked = [grants[index] for index in calls]
        restored = self._answers("re-assert", scripts.REASSERT, self._round(asked, list(calls.values())), sent)
        for index, answer in zip(calls, restored, strict=True):
            answers[index] = answer
        for index in vanished:
            if isinstance(answers[index], Gone):
                self._beliefs.forget(grants[index].nonce)

    def _assertion(self, grant: Grant) -> Call | None:
        """Return the call that restores a lease; None where that would be wrong: it is lost.

        Raises:
            BackendUnavailable: the server did not say who it is.
        """
        belief = self._beliefs.find(grant)
        if belief is None or not belief.proof.incarnation or belief.until <= SYSTEM.now():
            return None
        keys = self._keys.lease(grant.name)
        # Asked anew: what the connection said when it was opened may be older than the loss.
        known = self._server.converse("re-assert", keys.lease, lambda line: line.node.ask_who(line))
        if known.incarnation == belief.proof.incarnation:
            # The same life of the server: somebody deleted it, or it expired.
            return None
        args = (b"%d" % grant.token, b"%d" % round(grant.ttl * 1000), _wire.encode(belief.owner), b"%d" % known.until)
        return call((keys.lease, keys.token), grant.nonce.encode(), *args)

    def release(self, grant: Grant) -> bool:
        """End the lease if it is this grant's and wake the next waiter whose process lives."""
        keys = self._keys.lease(grant.name)
        ended = self._server.converse(
            "release", keys.lease, lambda line: self._release(line, grant.name, grant.nonce), greet=False
        )
        self._beliefs.forget(grant.nonce)
        return ended

    def _release(self, line: Line, name: str, nonce: str) -> bool:
        keys = self._keys.lease(name)
        return line.run(scripts.RELEASE, (keys.lease, keys.queue, keys.waiters), (nonce.encode(), name.encode())) == 1

    def withdraw(self, name: str, nonce: str) -> None:
        """Leave the line of waiters, or hand on the turn that was given to this owner."""
        keys = self._keys.lease(name)
        args = (nonce.encode(), name.encode())
        self._server.run("withdraw", scripts.WITHDRAW, (keys.lease, keys.queue, keys.waiters), args, greet=False)

    def all(self, prefix: str) -> list[LeaseRecord]:
        """Return the leases below a prefix; walks through all keys of the database, in many short requests."""
        keys = self._server.scan("listing leases", self._keys.lease_pattern(prefix))
        names = sorted(map(self._keys.name_of, keys))
        return [record for record in self.read(names) if record is not None]

    def read(self, names: Sequence[str]) -> list[LeaseRecord | None]:
        """Return who holds leases."""
        records: list[LeaseRecord | None] = [None] * len(names)
        calls = [call((self._keys.lease(name).lease,)) for name in names]
        bundles = self._server.bundles(calls)
        for number, reply, _ in self._server.run_bundles("reading leases", scripts.READ, bundles):
            if isinstance(reply, CoordinateError):
                raise reply
            for index, held in zip(bundles[number].indexes, reply, strict=True):
                records[index] = None if held is None else _record(names[index], held)
        return records

    def break_lease(self, name: str) -> int:
        """End the lease, damaged ones, too, and raise the token."""
        reply = self._server.run("break", scripts.BREAK, self._keys.lease(name), (name.encode(),))
        return int(cast(bytes, reply))


def _refusal(name: str, reply: list[Reply]) -> AcquireAnswer:
    if len(reply) == 1:
        return Quarantined(cast(int, reply[0]) / 1000)
    record = _record(name, reply)
    # A key lives until the millisecond after its time; before that, looking again would be in vain.
    return Held(record, min(record.ttl, record.remaining + 0.001))


def _record(name: str, reply: Reply) -> LeaseRecord:
    token, ttl, owner, left = cast("tuple[bytes | None, bytes | None, bytes | None, int]", reply)
    if token is None or ttl is None or owner is None or not (token.isdigit() and ttl.isdigit()):
        message = f"lease {name!r} is stored without its token, ttl or owner; breaking it repairs it"
        raise CorruptRecord(message)
    seconds = int(ttl) / 1000
    # Without an expiry, or with one beyond the ttl, it is as good as just granted: acquire() re-arms it.
    remaining = min(left / 1000, seconds) if left >= 0 else seconds
    return LeaseRecord(name, int(token), _wire.decode(Owner, owner), seconds, remaining)


def _exception(reply: Reply) -> RenewAnswer:
    if isinstance(reply, int):
        return Gone(_GONE[reply])
    return Unknown(cast(bytes, reply).decode(errors="replace"))
