"""One primary, two replicas, three Sentinels, as people run them."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import redis

from coordinate.testing import eventually
from tests.servers import READY_WITHIN, free_port
from tests.stacks.replicated import Replicated, port_of, replicated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import RedisServer

SERVICE = "main"
FAILOVER_WITHIN = 25.0
"""Seconds: about 2 as a rule; a split vote is repeated after twice the failover timeout."""


class Look(NamedTuple):
    """What differs between stacks.

    Args:
        server: more arguments of the data servers.
        sentinel: more lines of the Sentinels' configuration.
        password: of the Sentinels' administrator.
        tls: keywords of a client that talks to a Sentinel.
    """

    server: tuple[str, ...] = ()
    sentinel: tuple[str, ...] = ()
    password: str = ""
    tls: dict[str, object] = {}  # noqa: RUF012 -- never changed


class SentinelProcess:
    """One Sentinel of ours."""

    def __init__(self, folder: Path, primary: int, look: Look) -> None:
        self.folder = folder
        self.port = free_port()
        self._look = look
        self._process: subprocess.Popen[bytes] | None = None
        lines = (
            f"{'tls-port' if look.tls else 'port'} {self.port}",
            *(("port 0",) if look.tls else ()),
            "bind 127.0.0.1",
            f"dir {folder}",
            "sentinel announce-ip 127.0.0.1",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 2",
            *look.sentinel,
        )
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it; it answers when its client can ping it."""
        command = ["redis-server", str(self.folder / "sentinel.conf"), "--sentinel"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def client(self) -> redis.Redis:
        """Return a client of its administrator."""
        secret = self._look.password or None
        return redis.Redis(port=self.port, password=secret, socket_timeout=5, protocol=2, **self._look.tls)

    def master(self) -> dict[str, object]:
        """Return what it knows of the primary."""
        with self.client() as client:
            found: dict[str, object] = client.sentinel_master(SERVICE)
            return found

    def knows_everybody(self, replicas: int, others: int) -> bool:
        """Return whether it has met all servers and Sentinels."""
        try:
            known = self.master()
        except (redis.RedisError, OSError):
            return False
        met = (known["num-slaves"], known["num-other-sentinels"], known["flags"])
        return met == (replicas, others, "master")

    def kill(self) -> None:
        """End it as a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_WITHIN)
            self._process = None


class SentinelStack:
    """Servers and the Sentinels that watch them."""

    def __init__(self, group: Replicated, sentinels: list[SentinelProcess]) -> None:
        self.servers = group.servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """Return the store URL of database 0."""
        return f"redis+sentinel://{','.join(self.addresses)}/{SERVICE}/0"

    @property
    def addresses(self) -> list[str]:
        """Return host and port of each Sentinel."""
        return [f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels]

    @property
    def primary(self) -> RedisServer:
        """Return the server that most Sentinels name."""
        named = [int(str(sentinel.master()["port"])) for sentinel in self.sentinels]
        port = max(named, key=named.count)
        return next(server for server in self.servers if port_of(server) == port)

    def kill_primary(self) -> RedisServer:
        """Kill the primary and return it; it can be started again."""
        victim = self.primary
        victim.kill()
        return victim

    def pause_primary(self) -> RedisServer:
        """Stop the primary's process and return it; it can be resumed."""
        victim = self.primary
        victim.pause()
        return victim

    def wait_for_new_primary(self, old: RedisServer) -> RedisServer:
        """Return the server that all Sentinels name instead of ``old``, once it takes writes."""
        eventually(lambda: self._agreed() not in {None, port_of(old)}, within=FAILOVER_WITHIN, what="a failover")
        new = self.primary
        with new.client() as client:
            eventually(lambda: client.role()[0] == b"master", within=FAILOVER_WITHIN, what="the new primary")
        return new

    def _agreed(self) -> int | None:
        named = {int(str(sentinel.master()["port"])) for sentinel in self.sentinels}
        return named.pop() if len(named) == 1 else None

    def settle(self) -> None:
        """Return when everybody runs, follows the same primary and has been met by all Sentinels."""
        others, replicas = len(self.sentinels) - 1, len(self.servers) - 1
        eventually(
            lambda: all(sentinel.knows_everybody(replicas, others) for sentinel in self.sentinels),
            within=FAILOVER_WITHIN,
            what="Sentinels that know each other",
        )
        group = Replicated(self.servers)
        group.primary = self.primary
        group.wait_until_replicated(FAILOVER_WITHIN)

    def follow(self) -> None:
        """Make all other servers replicas of the primary at once."""
        group = Replicated(self.servers)
        group.primary = self.primary
        for server in group.replicas:
            group.follow(server)


@contextlib.contextmanager
def sentinel_stack(folder: Path, look: Look = Look()) -> Iterator[SentinelStack]:  # noqa: B008 -- immutable
    """Yield a settled stack; end it afterwards."""
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(replicated(folder, *look.server))
        sentinels: list[SentinelProcess] = []
        for number in range(3):
            place = folder / f"sentinel-{number}"
            place.mkdir()
            sentinel = SentinelProcess(place, port_of(group.primary), look)
            stack.callback(sentinel.kill)
            sentinel.start()
            sentinels.append(sentinel)
        made = SentinelStack(group, sentinels)
        made.settle()
        yield made
