"""A Redis primary with replicas, promoted by hand: fast, and every failover is exactly the one that a test asks for."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from coordinate.testing import eventually
from tests.servers import RedisServer, free_port, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPLICATION = (
    *("--repl-diskless-sync-delay", "0"),
    *("--repl-ping-replica-period", "1"),
    *("--replica-announce-ip", "127.0.0.1"),
)
"""A replica is of use as soon as it has connected, and known by the address that tests use."""

FREE = "free port"


class Replicated:
    """Servers of which one is the primary."""

    def __init__(self, servers: list[RedisServer]) -> None:
        self.servers = servers
        self.primary = servers[0]

    @property
    def replicas(self) -> list[RedisServer]:
        """Return the other servers."""
        return [server for server in self.servers if server is not self.primary]

    def follow(self, replica: RedisServer) -> None:
        """Make a server a replica of the primary; what it has beyond that one's data is lost."""
        with replica.client() as client:
            client.replicaof("127.0.0.1", str(port_of(self.primary)))

    def wait_until_replicated(self, within: float = 10.0) -> None:
        """Return when all running replicas have what the primary has."""
        count, deadline = len(self.replicas), time.monotonic() + within
        with self.primary.client() as client:
            eventually(lambda: online(client.info("replication"), count), within=within, what="replicas")
            # WAIT is about this connection's own writes, and a message that nobody hears is one.
            client.publish("anybody", "here")
            assert client.wait(count, round((deadline - time.monotonic()) * 1000)) == count

    def promote(self, replica: RedisServer) -> None:
        """Make a replica the primary; the others go on following the deposed one until `follow` is called."""
        with replica.client() as client:
            client.replicaof("NO", "ONE")
        self.primary = replica


def port_of(server: RedisServer) -> int:
    """Return the port by which other servers and clients find it: the encrypted one where there is one."""
    if "--tls-port" in server.args:
        return int(server.args[server.args.index("--tls-port") + 1])
    return server.port


def online(info: dict[str, object], replicas: int) -> bool:
    """Return whether so many replicas are connected and in step."""
    rows = [info.get(f"slave{number}") for number in range(replicas)]
    return all(isinstance(row, dict) and row["state"] == "online" for row in rows)


@contextlib.contextmanager
def replicated(folder: Path, *args: str, replicas: int = 2) -> Iterator[Replicated]:
    """Yield a primary and its replicas, all up to date; end them afterwards.

    An argument that is ``FREE`` becomes a free port, another one for each server.
    """
    with contextlib.ExitStack() as stack:
        servers: list[RedisServer] = []
        for number in range(replicas + 1):
            place = folder / f"redis-{number}"
            place.mkdir()
            source = ("--replicaof", f"127.0.0.1 {port_of(servers[0])}") if servers else ()
            own = [str(free_port()) if arg == FREE else arg for arg in args]
            servers.append(stack.enter_context(redis_server(place, *REPLICATION, *own, *source)))
        group = Replicated(servers)
        group.wait_until_replicated()
        yield group
