"""Which server has a key: the one question in which a single server, Sentinel and Cluster differ.

Everything above talks to a `Topology`. Each way to run Redis has a file of its own: `standalone`, `sentinel`,
`cluster`.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar, cast

from redis.exceptions import ReadOnlyError, ResponseError

from coordinate.backends.redis.failures import DRIVER_ERRORS, NotReplicated, failure
from coordinate.backends.redis.node import Bundle, joined
from coordinate.errors import BackendUnavailable, CoordinateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coordinate.backends.redis.node import Call, Known, Line, Node
    from coordinate.backends.redis.options import Options
    from coordinate.backends.redis.scripts import Script
    from coordinate.backends.redis.watch import RedisWatch
    from coordinate.backends.redis.wires import Reply
    from coordinate.types import Finding
    from coordinate.url import StoreUrl

T = TypeVar("T")

BATCH = 500
"""Items in one call of a script: it blocks the server while it runs, this many for about 2 ms."""
_PAGE = 1000
_HOPS = 5
"""Attempts of one request that servers refuse and pass on, before we say so."""


class Topology(ABC):
    """Servers behind one URL.

    Every request is executed at most once: a server's refusal is followed to the right server, but what may have
    been executed is not repeated here. An error says that it may or may not have happened.
    """

    patience = math.inf
    """Seconds after which a waiter looks for itself although its channel is silent. Finite where a server that hangs
    can be replaced by another one: the channel to it then stays open and silent."""

    def __init__(self, url: StoreUrl, options: Options) -> None:
        self.url = url
        self.options = options
        self.changes = 0
        """How often the servers have changed: what was asked of them before may be wrong now."""
        self._watches: weakref.WeakSet[RedisWatch] = weakref.WeakSet()

    @property
    @abstractmethod
    def place(self) -> str:
        """Return which servers these are, equal in all processes that share them."""

    @abstractmethod
    def node(self, key: bytes) -> Node:
        """Return the primary that has a key, ``b""`` for any of them; may have to ask around.

        Raises:
            redis.RedisError, OSError: nobody could say.
        """

    def findings(self) -> list[Finding]:
        """Return what is wrong beside the primaries, for ``coordinate doctor``."""
        return []

    @abstractmethod
    def nodes(self) -> list[Node]:
        """Return all primaries.

        Raises:
            redis.RedisError, OSError: nobody could say.
        """

    def tags_of(self, node: Node) -> Sequence[str]:  # noqa: ARG002 -- outside a Cluster any tag will do
        """Return the hash tags of the records about a node, whose keys live on it and reach its successor."""
        return ("i",)

    @abstractmethod
    def learn(self, node: Node | None, error: Exception) -> bool:
        """Learn from an error; return whether the request was certainly not executed and may go elsewhere."""

    @abstractmethod
    def close(self) -> None:
        """Close what is not in use. Idempotent."""

    def detour(self, node: Node, error: Exception) -> Node | None:  # noqa: ARG002 -- only Cluster knows any
        """Return another server that takes this one request, although the key is not its own yet."""
        return None

    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        """Return which keys one call of a script may name together, by their indexes; a single server takes any."""
        return [range(start, min(start + BATCH, len(keys))) for start in range(0, len(keys), BATCH)]

    def plan(self, keys: Sequence[bytes]) -> Iterator[Sequence[int]]:
        """Yield one conversation after another, each the indexes of calls, of which one key is given.

        A single server gets all of them in one conversation: it fails as a whole, after one timeout.
        """
        if keys:
            yield range(len(keys))

    # Talking

    def converse(self, what: str, key: bytes, talk: Callable[[Line], T], *, greet: bool = True) -> T:
        """Return what ``talk`` returns on a connection to the server that has ``key``; ``greet``: see `Node.take`.

        Raises:
            BackendUnavailable: no usable answer; ``what`` is named in it.
            CorruptRecord: a script found a record that it cannot understand.
        """
        detour: Node | None = None
        for hop in range(_HOPS):
            node = None
            try:
                node = detour or self.node(key)
                line = node.take(greet=greet)
                line.asking = detour is not None
                try:
                    return talk(line)
                finally:
                    node.put(line)
            except NotReplicated as error:
                message = f"{what} on {self.url} is not safe: {error}; asking again is"
                raise BackendUnavailable(message) from error
            except DRIVER_ERRORS as error:
                if not self.learn(node, error) or hop == _HOPS - 1:
                    raise failure(what, self.url, error) from error
                detour = self.detour(node, error) if node is not None else None
        raise AssertionError  # pragma: no cover -- the last hop returns or raises

    def run(
        self, what: str, script: Script, keys: Sequence[bytes], args: Sequence[bytes] = (), *, greet: bool = True
    ) -> Reply:
        """Return a script's reply; all keys are on one server."""
        return self.converse(what, keys[0], lambda line: line.run(script, keys, args), greet=greet)

    def ask(self, what: str, *words: bytes) -> Reply:
        """Return the reply to a plain command that any primary can answer."""
        return self.converse(what, b"", lambda line: line.ask(*words))

    def bundles(self, items: Sequence[Call]) -> list[Bundle]:
        """Return calls put together into fewer; good for as long as the calls are."""
        groups = self.groups([item.place for item in items])
        return [Bundle(group, joined([items[index] for index in group])) for group in groups]

    def run_bundles(
        self, what: str, script: Script, bundles: Sequence[Bundle], afterwards: Callable[[Line], object] | None = None
    ) -> Iterator[tuple[int, list[Reply] | CoordinateError, Known | None]]:
        """Yield, for the index of each bundle, the reply (or why there is none) and what its server is known for.

        ``afterwards`` is called on each connection when its replies are read.
        """
        for numbers in self.plan([bundle.call.place for bundle in bundles]):
            calls = [bundles[number].call for number in numbers]
            try:
                answers, known = self._converse_all(what, script, calls, afterwards)
            except CoordinateError as error:
                for number in numbers:
                    yield number, error, None
                continue
            for number, each, answer in zip(numbers, calls, answers, strict=True):
                if not isinstance(answer, ResponseError):
                    yield number, cast("list[Reply]", answer), known
                elif self.learn(None, answer):
                    yield number, *self._followed(what, script, each, afterwards)
                else:
                    yield number, failure(what, self.url, answer), known

    def _followed(
        self, what: str, script: Script, refused: Call, afterwards: Callable[[Line], object] | None
    ) -> tuple[list[Reply] | CoordinateError, Known | None]:
        """Follow one call that was refused among others to where its keys are now."""

        def talk(line: Line) -> tuple[list[Reply], Known]:
            reply = line.evaluate(script, refused)
            if afterwards is not None:
                afterwards(line)
            return cast("list[Reply]", reply), line.known

        try:
            return self.converse(what, refused.place, talk)
        except CoordinateError as error:
            return error, None

    def _converse_all(
        self, what: str, script: Script, calls: Sequence[Call], afterwards: Callable[[Line], object] | None
    ) -> tuple[list[Reply | ResponseError], Known]:
        def talk(line: Line) -> tuple[list[Reply | ResponseError], Known]:
            answers = line.run_all(script, calls)
            if all(isinstance(answer, ReadOnlyError) for answer in answers):
                # None of it was executed: it may go to the server's successor as a whole.
                raise cast(ReadOnlyError, answers[0])
            if afterwards is not None:
                afterwards(line)
            return answers, line.known

        return self.converse(what, calls[0].place, talk)

    def everywhere(self, what: str, talk: Callable[[Line], T]) -> list[T]:
        """Return what ``talk`` returns on a connection to each primary; all anew where one turns out to be none.

        Raises:
            BackendUnavailable: no usable answer of one of them.
        """
        for hop in range(_HOPS):
            node = None
            answers: list[T] = []
            try:
                for node in self.converse(what, b"", lambda _: self.nodes()):
                    line = node.take()
                    try:
                        answers.append(talk(line))
                    finally:
                        node.put(line)
            except DRIVER_ERRORS as error:
                if not self.learn(node, error) or hop == _HOPS - 1:
                    raise failure(what, self.url, error) from error
            else:
                return answers
        raise AssertionError  # pragma: no cover -- the last hop returns or raises

    def scan(self, what: str, pattern: bytes) -> set[bytes]:
        """Return the keys that fit a glob, of all primaries, in many short requests."""
        return set().union(*self.everywhere(what, lambda line: _scan(line, pattern)))

    # Waiting channels

    def attend(self, watch: RedisWatch) -> None:
        """Tell a waiting channel when the servers change: what it listens to may not be where the keys are."""
        self._watches.add(watch)

    def moved(self) -> None:
        """Break all waiting channels, after the servers have changed: their owners open new ones."""
        self.changes += 1
        for watch in list(self._watches):
            watch.sever()


def _scan(line: Line, pattern: bytes) -> set[bytes]:
    found: set[bytes] = set()
    cursor = b"0"
    while True:
        reply = line.ask(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _PAGE)
        cursor, page = cast("tuple[bytes, list[bytes]]", reply)
        found.update(page)
        if cursor == b"0":
            return found
