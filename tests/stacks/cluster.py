"""Six servers that form a Redis Cluster: three primaries, a replica for each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import pytest
import redis

from coordinate.backends.redis.slots import SLOTS, slot_of
from coordinate.testing import eventually
from tests.servers import free_port, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import RedisServer

SETTINGS = (
    *("--cluster-enabled", "yes"),
    *("--cluster-node-timeout", "1000"),
    *("--cluster-allow-replica-migration", "no"),
    *("--repl-diskless-sync-delay", "0"),
    *("--repl-ping-replica-period", "1"),
    *("--min-replicas-max-lag", "1"),
)
"""A replica is of use as soon as it has connected; a failover takes about two seconds, and so does a quarantine."""
PRIMARIES = 3
SETTLED_WITHIN = 60.0
"""Seconds: about 2 on an idle machine, also for a failover."""


class Slots(NamedTuple):
    """Who has a range of slots, as one server sees it."""

    first: int
    last: int
    port: int
    identity: str


class Cluster:
    """The servers of one Cluster, and what can happen to them."""

    def __init__(self, servers: list[RedisServer]) -> None:
        self.servers = servers

    def url(self, *, reverse: bool = False) -> str:
        """Return the store URL, which names two servers of the six."""
        hosts = [f"127.0.0.1:{server.port}" for server in self.servers[:2]]
        return f"redis+cluster://{','.join(reversed(hosts) if reverse else hosts)}"

    @property
    def alive(self) -> list[RedisServer]:
        """Return the servers that were not killed."""
        return [server for server in self.servers if server.running]

    def server(self, port: int) -> RedisServer:
        """Return the server on a port."""
        return next(server for server in self.servers if server.port == port)

    def identity(self, server: RedisServer) -> str:
        """Return the name by which the others know a server."""
        with server.client() as client:
            return str(client.execute_command("CLUSTER", "MYID").decode())

    # Who has what

    def slots(self, server: RedisServer | None = None) -> list[Slots]:
        """Return the map as a server sees it."""
        with (server or self.alive[0]).client() as client:
            rows = client.execute_command("CLUSTER SLOTS", NEVER_PARSE=True)
        return sorted(Slots(row[0], row[1], row[2][1], row[2][2].decode()) for row in rows)

    def owner(self, key: str) -> RedisServer:
        """Return the primary that has a key's slot."""
        slot = slot_of(key.encode())
        return self.server(next(each.port for each in self.slots() if each.first <= slot <= each.last))

    def another(self, *others: RedisServer) -> RedisServer:
        """Return a primary that is none of these."""
        ports = {server.port for server in others}
        return self.server(next(each.port for each in self.slots() if each.port not in ports))

    def client(self, key: str) -> redis.Redis:
        """Return a plain client of the primary that has a key."""
        return self.owner(key).client()

    def read(self, key: str) -> dict[bytes, bytes]:
        """Return a hash, from the server that has it."""
        with self.client(key) as client:
            return dict(client.hgetall(key))

    def flush(self) -> None:
        """Empty all primaries."""
        for port in {each.port for each in self.slots()}:
            with self.server(port).client() as client:
                client.flushall()

    # What can happen

    @contextlib.contextmanager
    def joined_by(self, folder: Path) -> Iterator[RedisServer]:
        """Yield one more server, a primary without slots; give its slots back and forget it afterwards."""
        bus = free_port()
        with redis_server(folder, *SETTINGS, "--cluster-port", str(bus)) as server:
            with self.alive[0].client() as client:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
            self.servers.append(server)
            self.wait_ok()
            try:
                yield server
            finally:
                mine = [each for each in self.slots() if each.port == server.port]
                for slot in (slot for each in mine for slot in range(each.first, each.last + 1)):
                    self.move(slot, self.another(server))
                self._forget(server)

    def _forget(self, server: RedisServer) -> None:
        name = self.identity(server)
        server.kill()
        self.servers.remove(server)
        for other in self.servers:
            with other.client() as client:
                client.execute_command("CLUSTER", "FORGET", name)
        self.wait_ok()

    def kill_owner(self, key: str) -> RedisServer:
        """Kill the primary that has a key, as a crash would; return it."""
        server = self.owner(key)
        server.kill()
        return server

    def fail_over(self, key: str) -> RedisServer:
        """Kill the primary that has a key, and return when its replica has taken its place; return the killed one."""
        old = self.kill_owner(key)
        eventually(lambda: self.owner(key) is not old, within=SETTLED_WITHIN, what="the failover")
        self.wait_ok()
        return old

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Open a slot: from now on it is under way."""
        with source.client() as from_, target.client() as to:
            to.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.identity(source))
            from_.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.identity(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, *only: str) -> None:
        """Move the keys of an open slot, or only some of them."""
        with source.client() as from_:
            keys = only or from_.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
            if keys:
                from_.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Close a slot: it is the target's now."""
        name = self.identity(target)
        for server in [target, *(each for each in self.alive if each is not target)]:
            with server.client() as client, contextlib.suppress(redis.ResponseError):
                # Replicas do not take this; they are told by their primaries.
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)

    def move(self, slot: int, target: RedisServer) -> None:
        """Move a slot with its keys, as ``redis-cli --cluster reshard`` does."""
        source = self.server(next(each.port for each in self.slots() if each.first <= slot <= each.last))
        assert source is not target
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, target)
        eventually(
            lambda: all(self._owner_of(slot, server) == target.port for server in self.alive),
            within=SETTLED_WITHIN,
            what=f"slot {slot} on {target.port}",
        )

    def _owner_of(self, slot: int, server: RedisServer) -> int:
        return next((each.port for each in self.slots(server) if each.first <= slot <= each.last), 0)

    def restart(self, server: RedisServer) -> None:
        """Bring a killed server back; it follows whoever has taken its place."""
        server.start()
        self.wait_ok()

    def close_slots(self) -> None:
        """Close what a test has left under way: a server with an open slot does not believe who has it by now."""
        for server in self.alive:
            with server.client() as client:
                nodes = dict(client.execute_command("CLUSTER NODES"))
                (mine,) = [node for node in nodes.values() if "myself" in node["flags"]]
                for move in mine["migrations"]:
                    client.execute_command("CLUSTER", "SETSLOT", move["slot"], "STABLE")

    def wait_ok(self) -> None:
        """Return when all running servers see a whole Cluster and every running replica is up to date."""
        try:
            eventually(self._is_ok, within=SETTLED_WITHIN, what="a whole Cluster")
        except pytest.fail.Exception as failed:
            pytest.fail(f"{failed}\n{self._told()}")

    def _told(self) -> str:
        """Return what each running server says of the Cluster."""
        texts = []
        for server in self.alive:
            with server.client() as client:
                replication = client.info("replication")
                link = f"{replication['role']} {replication.get('master_link_status', '')}"
                nodes, state = client.execute_command("CLUSTER NODES"), client.execute_command("CLUSTER INFO")
            lines = "\n".join(f"{name} {what}" for name, what in dict(nodes).items())
            texts.append(f"--- {server.port}: {link} {state}\n{lines}")
        return "\n".join(texts)

    def _is_ok(self) -> bool:
        for server in self.alive:
            with server.client() as client:
                state = client.execute_command("CLUSTER INFO")
                replication = client.info("replication")
            if state["cluster_state"] != "ok" or int(state["cluster_known_nodes"]) != len(self.servers):
                return False
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
        return len({tuple(self.slots(server)) for server in self.alive}) == 1


def _form(servers: list[RedisServer], buses: list[int], cluster: Cluster) -> None:
    """Introduce the servers to each other, give out the slots and the replicas."""
    primaries, replicas = servers[:PRIMARIES], servers[PRIMARIES:]
    bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
    for number, server in enumerate(servers):
        with server.client() as client:
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if server in primaries:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            for other, bus in zip(servers[:number], buses, strict=False):
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
    for primary, replica in zip(primaries, replicas, strict=True):
        name = cluster.identity(primary)
        with replica.client() as client:
            eventually(lambda: _follows(client, name), within=SETTLED_WITHIN, what="a replica")  # noqa: B023 -- called here
    cluster.wait_ok()


def _follows(client: redis.Redis, name: str) -> bool:
    """Make a server a replica, as soon as it knows its primary."""
    with contextlib.suppress(redis.ResponseError):
        client.execute_command("CLUSTER", "REPLICATE", name)
        return True
    return False


@contextlib.contextmanager
def redis_cluster(folder: Path, *args: str) -> Iterator[Cluster]:
    """Yield a formed Cluster; end its servers afterwards."""
    with contextlib.ExitStack() as stack:
        servers: list[RedisServer] = []
        buses = [free_port() for _ in range(2 * PRIMARIES)]
        for number in range(2 * PRIMARIES):
            place = folder / f"redis-{number}"
            place.mkdir()
            port = ("--cluster-port", str(buses[number]))
            servers.append(stack.enter_context(redis_server(place, *SETTINGS, *port, *args)))
        cluster = Cluster(servers)
        _form(servers, buses, cluster)
        yield cluster
