"""Redis Cluster: ``redis+cluster://`` and ``rediss+cluster://``, several primaries that share the keys by slot.

Clients ask any server for the map of slots. A server that is asked for a key which it does not have refuses and says
who has it; nothing has been executed then, so that the request goes there.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, cast

from redis import exceptions as driver

from coordinate._clock import SYSTEM
from coordinate.backends.redis import wires
from coordinate.backends.redis.failures import DRIVER_ERRORS, was_refused
from coordinate.backends.redis.node import Node
from coordinate.backends.redis.slots import SlotMap, parse, slot_of, tag_in
from coordinate.backends.redis.topology import BATCH, Topology
from coordinate.errors import ConfigError
from coordinate.url import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coordinate.backends.redis.incarnation import Census
    from coordinate.backends.redis.options import Options
    from coordinate.backends.redis.slots import Range
    from coordinate.url import StoreUrl

_FRESH = 0.1
"""Seconds for which a map is believed although a server does not answer: it takes the others longer to notice."""
_PATIENCE = 0.5
"""Seconds that one server has to tell the map, before the next one is asked."""

_ELSEWHERE = (driver.AskError, driver.ReadOnlyError, driver.ClusterDownError, driver.TryAgainError)


class Cluster(Topology):
    """The primaries of a Cluster. Any of its servers may be named in the URL, in any order.

    Two URLs that name different servers are two stores to `store_id`, although they work together.
    """

    patience = 30.0

    def __init__(self, url: StoreUrl, options: Options, census: Census) -> None:
        super().__init__(url, options)
        _refuse_database(url)
        self._greet = census.greeter(self.tags_of)
        seeds = [Host(host.name, host.port or wires.DEFAULT_PORT) for host in url.hosts]
        self._seeds = seeds or [Host("localhost", wires.DEFAULT_PORT)]
        self._place = ",".join(sorted({self._address(seed).place for seed in self._seeds}))
        self._map: SlotMap | None = None
        self._nodes: dict[tuple[str, Host], Node] = {}
        """The primaries of the map, and servers that a request was passed on to; by identity and address."""
        self._present: set[tuple[str, Host]] = set()
        self._sources: list[Host] = []
        """Whom to ask for the map, best first."""
        self._stale = True
        self._mapped_at = -_FRESH
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def place(self) -> str:
        """Return the addresses of the URL, sorted."""
        return self._place

    def _address(self, host: Host, **more: object) -> wires.Address:
        return wires.tcp(host, {**self.options.greeting, **more})

    # Who has what

    def node(self, key: bytes) -> Node:
        """Return the primary that has a key, ``b""`` for any of them.

        Raises:
            redis.RedisError, OSError: nobody could say, or nobody serves the key's slot now.
        """
        slots = self._slots()
        if not key:
            return self.nodes()[0]
        slot = slot_of(key)
        found = slots.find(slot)
        if found is None:
            message = f"no server has slot {slot}"
            raise driver.ClusterDownError(message)
        return self._node_of(found.identity, Host(found.host, found.port))

    def nodes(self) -> list[Node]:
        """Return all primaries that have slots.

        Raises:
            redis.RedisError, OSError: nobody could say.
        """
        self._slots()
        return [self._nodes[key] for key in sorted(self._present)]

    def tags_of(self, node: Node) -> tuple[str, ...]:
        """Return a hash tag in the lowest and one in the highest slot of a node; none if it has no slots.

        Slots move between servers, and the record about a server moves with its slot: one of two stays.
        """
        return tuple(tag_in(slot) for slot in self._map.edges(node.identity)) if self._map is not None else ()

    def groups(self, keys: Sequence[bytes]) -> list[Sequence[int]]:
        """Return which keys one call of a script may name together: those of one slot."""
        by_slot: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            by_slot.setdefault(slot_of(key), []).append(index)
        return [
            indexes[start : start + BATCH] for indexes in by_slot.values() for start in range(0, len(indexes), BATCH)
        ]

    def plan(self, keys: Sequence[bytes]) -> Iterator[list[int]]:
        """Yield one conversation for each server; the troubled last."""
        find: Callable[[int], Range | None]
        try:
            find = self._slots().find
        except DRIVER_ERRORS:
            # The first request says it: all of them fail, once.
            find = _nobody
        by_server: dict[Host | None, list[int]] = {}
        for index, key in enumerate(keys):
            owner = find(slot_of(key))
            by_server.setdefault(Host(owner.host, owner.port) if owner is not None else None, []).append(index)
        # Who has failed comes last: if it hangs, the others' leases are renewed by then.
        ranks = {host: rank for rank, host in enumerate(self._sources)}
        for host in sorted(by_server, key=lambda host: ranks.get(host, len(ranks)) if host else len(ranks)):
            yield by_server[host]

    # Learning

    def learn(self, node: Node | None, error: Exception) -> bool:
        """Learn that the map is old; True where a server refused, so that the request may go elsewhere."""
        if isinstance(error, driver.MovedError):
            self._stale = True
            self._mapped_at = -_FRESH
            self._prefer(self._named(error))
        elif not isinstance(error, driver.AskError):
            self._stale = True
            self._avoid(node)
        return isinstance(error, _ELSEWHERE) or was_refused(error)

    def detour(self, node: Node, error: Exception) -> Node | None:
        """Return who takes this one request, while the slot is under way to it."""
        if not isinstance(error, driver.AskError) or isinstance(error, driver.MovedError):
            return None
        host = self._named(error)
        asked = self._host_of(node)
        if not host.name and asked is not None:
            host = Host(asked.name, host.port)
        known = [key for key in self._present if key[1] == host]
        return self._node_of(known[0][0] if known else "", host)

    @staticmethod
    def _named(error: driver.AskError) -> Host:
        return Host(error.host, error.port)

    def _prefer(self, host: Host) -> None:
        if host.name:
            self._sources = [host, *(other for other in self._sources if other != host)]

    def _avoid(self, node: Node | None) -> None:
        """Ask a server last that has just failed: it may be alone with its view."""
        host = self._host_of(node)
        if host is not None:
            self._sources = [*(other for other in self._sources if other != host), host]

    def _host_of(self, node: Node | None) -> Host | None:
        return next((host for (_, host), each in list(self._nodes.items()) if each is node), None)

    # The map

    def _slots(self) -> SlotMap:
        if self._map is not None and not self._outdated():
            return self._map
        with self._mine():
            if self._map is None or self._outdated():
                self._refresh()
            return cast(SlotMap, self._map)

    def _outdated(self) -> bool:
        return self._stale and SYSTEM.now() - self._mapped_at >= _FRESH

    def _mine(self) -> threading.Lock:
        if self._pid != os.getpid():
            # A thread that does not exist in this forked child may have held it.
            self._pid, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def _refresh(self) -> None:
        ranges, sure = self._ask_around()
        new, old = SlotMap(ranges), self._map
        self._map = new
        self._present = {(each.identity, Host(each.host, each.port)) for each in ranges}
        for key in self._present:
            self._node_of(*key)
        self._sources = list(dict.fromkeys([*self._sources, *(host for _, host in sorted(self._present))]))
        self._mapped_at = SYSTEM.now()
        # What a server says that has lost sight of the others is used for want of better, and asked for again.
        self._stale = not sure
        self._drop_strangers()
        if old is not None and old.owners() != new.owners():
            self.moved()

    def _drop_strangers(self) -> None:
        for key in [key for key in self._nodes if key not in self._present]:
            self._nodes.pop(key).close()

    def _ask_around(self) -> tuple[list[Range], bool]:
        """Return the map of the first server that sees a whole Cluster, else of the first that has one."""
        until = SYSTEM.now() + self.options.timeout
        doubtful: list[Range] = []
        trouble: Exception | None = None
        for host in list(dict.fromkeys([*self._sources, *self._seeds])):
            if trouble is not None and SYSTEM.now() > until:
                break
            try:
                ranges, sure = self._ask(host)
            except (*DRIVER_ERRORS, ValueError) as error:
                trouble = _of_driver(error, trouble)
                continue
            if sure and ranges:
                self._prefer(host)
                return ranges, True
            doubtful = doubtful or ranges
        if doubtful:
            return doubtful, False
        raise trouble or driver.ClusterDownError("the servers have no slots: form the Cluster first")

    def _ask(self, host: Host) -> tuple[list[Range], bool]:
        patience = min(_PATIENCE, self.options.timeout)
        wire = self._address(host, socket_timeout=patience, socket_connect_timeout=patience).connect()
        try:
            wire.send_packed_command([wires.pack((b"CLUSTER", b"SLOTS"))], check_health=False)
            ranges = parse(wire.read_response())
            sure = _sees_all(wire)
        finally:
            wire.disconnect()
        return [each._replace(host=each.host or host.name) for each in ranges], sure

    def _node_of(self, identity: str, host: Host) -> Node:
        node = self._nodes.get((identity, host))
        if node is None:
            made = Node(self._address(host), self._greet, identity)
            node = self._nodes.setdefault((identity, host), made)
        return node

    def close(self) -> None:
        """Close the connections that are not in use."""
        for node in list(self._nodes.values()):
            node.close()


def _nobody(_: int) -> Range | None:
    return None


def _refuse_database(url: StoreUrl) -> None:
    if url.path.strip("/") not in {"", "0"}:
        message = f"{url}: a Cluster has database 0 only: leave {url.path!r} out"
        raise ConfigError(message)


def _sees_all(wire: wires.Wire) -> bool:
    wire.send_packed_command([wires.pack((b"CLUSTER", b"INFO"))], check_health=False)
    try:
        return b"cluster_state:ok" in cast(bytes, wire.read_response())
    except driver.ResponseError:
        # Forbidden to this user: then there is no reason to doubt it.
        return True


def _of_driver(error: Exception, earlier: Exception | None) -> Exception:
    """Return the error to report: the first that says more than that nobody was there."""
    if isinstance(error, ValueError) and not isinstance(error, DRIVER_ERRORS):
        error = driver.InvalidResponse(str(error))
    return earlier if earlier is not None and not isinstance(earlier, (driver.ConnectionError, OSError)) else error
