"""Real ZooKeeper servers for tests: from ``zookeeper.jar`` alone, small, in a temporary folder, ended by their pid.

A missing ``zookeeper.jar`` or ``java`` fails the test that needs it: a suite that skips proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import free_port, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JAR = Path("/usr/share/java/zookeeper.jar")
NETTY = Path("/usr/share/java/netty-codec.jar")
"""For TLS; the manifest of zookeeper.jar does not name it."""
READY_WITHIN = 90.0
"""Seconds; an idle machine starts three servers in two."""
TICK = 100
"""Milliseconds; sessions end within one of them."""
_JAVA = ("-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.admin.enableServer=false")
_SMALL = ("-Dzookeeper.preAllocSize=64",)
"""Kilobytes that a log file reserves on the disk; by default 64 MB each."""


class Server:
    """One server of an ensemble.

    Args:
        folder: for its configuration, log and data.
        lines: its configuration besides port and data.
        java: further arguments for java.
    """

    def __init__(self, folder: Path, lines: tuple[str, ...] = (), java: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self._lines = lines
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the pid of the running process."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def launch(self) -> None:
        """Start the process; it may not answer yet."""
        assert JAR.exists(), "install the packages zookeeper and default-jre-headless"
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        lines = [
            f"tickTime={TICK}", f"minSessionTimeout={2 * TICK}", "maxSessionTimeout=60000", "maxClientCnxns=0",
            "4lw.commands.whitelist=srvr", "initLimit=100", "syncLimit=20", f"dataDir={data}",
            f"clientPort={self.port}", "clientPortAddress=127.0.0.1", *self._lines,
        ]  # fmt: skip
        config = self.folder / "zoo.cfg"
        config.write_text("\n".join(lines) + "\n", encoding="ascii")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("java", *_JAVA, *_SMALL, *self._java, "-cp", f"{JAR}:{NETTY}"),
                    *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def mode(self) -> str:
        """Return ``standalone``, ``leader``, ``follower``, or nothing while it does not serve."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
            wire.sendall(b"srvr")
            answer = b"".join(iter(lambda: wire.recv(4096), b"")).decode("utf-8", "replace")
            return next((line[6:] for line in answer.splitlines() if line.startswith("Mode: ")), "")
        return ""

    def wait(self) -> None:
        """Return when it serves."""
        deadline = time.monotonic() + READY_WITHIN
        while not self.mode():
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.02)

    def start(self) -> None:
        """Start and return when it serves."""
        self.launch()
        self.wait()

    def pause(self) -> None:
        """Stop the process: connections stay open, nothing answers."""
        stop(self.pid)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process as a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_WITHIN)
            self._process = None

    def wipe(self) -> None:
        """Lose all data of a server that is not running."""
        shutil.rmtree(self.folder / "data")


class Ensemble:
    """Servers that serve together.

    Args:
        servers: in any order.
    """

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers

    @property
    def hosts(self) -> str:
        """Return the servers' addresses as in a URL."""
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def url(self, chroot: str = "/test", credentials: str = "", **options: str) -> str:
        """Return a store URL."""
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return f"zookeeper://{credentials}{self.hosts}{chroot}{'?' if query else ''}{query}"

    def leader(self) -> Server:
        """Return the server that leads, when there is one."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            for server in self.servers:
                if server.mode() == "leader":
                    return server
            time.sleep(0.02)
        message = f"no leader within {READY_WITHIN} s"
        raise AssertionError(message)

    def start(self) -> None:
        """Start all and return when all serve."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait()

    def each(self, act: Callable[[Server], None]) -> None:
        """Do something to every server."""
        for server in self.servers:
            act(server)


@contextlib.contextmanager
def standalone(folder: Path, *lines: str, java: tuple[str, ...] = ()) -> Iterator[Ensemble]:
    """Yield one running server; end it afterwards."""
    ensemble = Ensemble([Server(folder, lines, java)])
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.each(Server.kill)


@contextlib.contextmanager
def ensemble_of_three(folder: Path) -> Iterator[Ensemble]:
    """Yield three running servers; end them afterwards."""
    ports = [(free_port(), free_port()) for _ in range(3)]
    lines = tuple(f"server.{number}=127.0.0.1:{one}:{two}" for number, (one, two) in enumerate(ports, 1))
    servers = []
    for number in (1, 2, 3):
        server = Server(folder / str(number), lines)
        (server.folder / "data").mkdir(parents=True)
        (server.folder / "data" / "myid").write_text(str(number), encoding="ascii")
        servers.append(server)
    ensemble = Ensemble(servers)
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.each(Server.kill)
