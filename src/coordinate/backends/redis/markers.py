"""Claims and marker records on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from coordinate import _wire
from coordinate.backends.redis import scripts
from coordinate.backends.redis.failures import NotReplicated
from coordinate.backends.redis.keys import Keys, field
from coordinate.backends.redis.replicas import confirm_record
from coordinate.errors import AlreadyDone, CorruptRecord, StaleToken
from coordinate.types import Claim, MarkerRecord, MarkerState, MarkerView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinate.backends.redis.node import Line
    from coordinate.backends.redis.scripts import Script
    from coordinate.backends.redis.topology import Topology
    from coordinate.backends.redis.wires import Reply


class Markers:
    """The marker half of `RedisBackend`; its methods promise what those of the port do.

    Args:
        server: where they are.
        keys: their names.
        durable: False only if the servers have said that they promise no durable records.
    """

    def __init__(self, server: Topology, keys: Keys, durable: Callable[[], bool]) -> None:
        self._server = server
        self._keys = keys
        self._durable = durable

    def _run_confirmed(self, what: str, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Reply:
        """Run a script whose effect has to survive a failover, as far as the servers can see to that."""

        def talk(line: Line) -> Reply:
            reply = line.run(script, keys, args)
            try:
                confirm_record(line, self._server.options)
            except NotReplicated:
                # Asked only now: most servers have no replicas, or replicas that answer.
                if self._server.options.durability != "none" or self._durable():
                    raise
            return reply

        return self._server.converse(what, keys[0], talk)

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a token that is strictly greater, or the same one again."""
        keys = self._keys.scope(scope)
        args = (b"%d" % claim.token, claim.owner.nonce.encode(), _wire.encode(claim), keys.changed)
        registered = self._run_confirmed("claim", scripts.CLAIM, (keys.claim,), args)
        if registered is not None:
            floor = int(cast(bytes, registered))
            message = f"claim of {scope!r} with token {claim.token} refused: {floor} is registered"
            raise StaleToken(message, floor)

    def put(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record under the claimed token."""
        stored = self._put(scope, record, token)
        if stored is None or stored == record:
            return
        message = f"step {record.step!r} of {record.revision!r} is done already"
        raise AlreadyDone(message)

    def _put(self, scope: str, record: MarkerRecord, token: int) -> MarkerRecord | None:
        """Store a record unless there is one that says done; return that one."""
        data, replaced = _wire.encode(record), b""
        while True:
            answer, detail = self._attempt(scope, record, data, token, replaced)
            if answer == b"stored":
                return None
            if answer == b"stale":
                message = f"marker of {scope!r} with token {token} refused: {int(detail)} is registered"
                raise StaleToken(message, int(detail))
            stored = readable(detail)
            if stored is not None and stored.state is MarkerState.DONE:
                return stored
            # A damaged record is never taken for done: it is replaced, unless somebody was faster.
            replaced = detail

    def _attempt(
        self, scope: str, record: MarkerRecord, data: bytes, token: int, replaced: bytes
    ) -> tuple[bytes, bytes]:
        keys = self._keys.scope(scope)
        # Whoever waits for a step waits for this: told what is stored, a fleet need not ask for it, all at once.
        told = data if record.state is MarkerState.DONE else b"marker"
        args = (b"%d" % token, field(record.step, record.revision), data, replaced, keys.changed, told)
        run = self._run_confirmed if record.state is MarkerState.DONE else self._server.run
        reply = run("writing a marker", scripts.PUT_MARKER, (keys.claim, keys.markers), args)
        answer, *detail = cast("list[bytes]", reply)
        return answer, detail[0] if detail else b""

    def view(self, scope: str) -> MarkerView:
        """Return claim and records of a scope."""
        keys = self._keys.scope(scope)

        def talk(line: Line) -> Reply:
            expected = line.expected
            reply = line.run(scripts.VIEW, (keys.claim, keys.markers), (expected,))
            if reply != []:
                line.verify(expected)
                return reply
            line.node.ask_who(line)
            return line.run(scripts.VIEW, (keys.claim, keys.markers), (b"",))

        # All followers look at once when a record changes: their request looks at the server's life itself.
        reply = self._server.converse("reading markers", keys.claim, talk, greet=False)
        token, claim, claimed, pairs = cast("tuple[bytes | None, bytes | None, int, list[bytes]]", reply)
        records = [
            record
            for key, data in zip(pairs[::2], pairs[1::2], strict=True)
            if (record := readable(data)) is not None and field(record.step, record.revision) == key
        ]
        return MarkerView(_claim(scope, token, claim) if claimed else None, tuple(records))

    def delete(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        keys = self._keys.scope(scope)
        args = (field(step, revision), keys.changed)
        return self._server.run("deleting a marker", scripts.DELETE_MARKER, (keys.markers,), args) == 1

    def scopes(self) -> list[str]:
        """Return the known scopes."""
        keys = self._server.scan("listing scopes", self._keys.scope_pattern())
        stored = (key for key in keys if key.endswith((b"}:claim", b"}:markers")))
        return sorted({self._keys.name_of(key) for key in stored})


def readable(data: bytes) -> MarkerRecord | None:
    """Return a stored record; None if it is damaged."""
    try:
        return _wire.decode(MarkerRecord, data)
    except CorruptRecord:
        return None


def _claim(scope: str, token: bytes | None, data: bytes | None) -> Claim:
    if token is None or data is None:
        message = f"the claim of {scope!r} has lost its token or its record"
        raise CorruptRecord(message)
    claim = _wire.decode(Claim, data)
    if b"%d" % claim.token != token:
        message = f"the claim of {scope!r} says token {claim.token} in its record and {token!r} beside it"
        raise CorruptRecord(message)
    return claim
