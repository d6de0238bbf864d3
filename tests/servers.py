"""Real servers for tests: started on demand, in a temporary folder, ended by their pid.

A missing ``redis-server`` fails the test that needs it: a suite that skips proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import redis

from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_WITHIN = 60.0
"""Seconds; an idle machine starts a server in well under one."""
PATIENCE = 15.0
"""Seconds that a request may take where the test is not about its limit."""
_PORTS = range(10_000, 32_000)
"""Below the ports from which connections start, which come and go between our look and the server's."""
_SHARES = 8
"""Test workers that run at once at most: each has ports of its own, for a port is free until its server has it."""
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment; no test of this run is given it twice."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = secrets.choice(_PORTS[worker % _SHARES :: _SHARES])
            if port not in _given:
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port


def opened(url: str, timeout: float = PATIENCE) -> RedisBackend:
    """Return a backend on the keys that start with ``t:``."""
    return RedisBackend.open(parse(url), StoreSettings("t", timeout))


class Address(NamedTuple):
    """Where a test server listens, and its administrator's password if it has one."""

    port: int
    """0 for a server that listens on its unix socket only."""
    socket: Path
    password: str = ""


def stop(pid: int) -> None:
    """Stop a process by SIGSTOP and return when all of its threads stand: one that still runs may give an answer."""
    os.kill(pid, signal.SIGSTOP)
    tasks, until = Path(f"/proc/{pid}/task"), time.monotonic() + READY_WITHIN
    while not {state_of(task) for task in tasks.iterdir()} <= set("TZ"):
        assert time.monotonic() < until, f"process {pid} does not stand"
        time.sleep(0.002)


def state_of(task: Path) -> str:
    """Return the letter for a thread's state, given its folder of proc; Z when it has just ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


class RedisServer:
    """One redis-server process of ours."""

    def __init__(self, folder: Path, address: Address, args: tuple[str, ...]) -> None:
        self.folder = folder
        self.address = address
        self.port = address.port
        self.args = args
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the pid of the running process."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether there is a process; it may be paused."""
        return self._process is not None

    @property
    def url(self) -> str:
        """Return the store URL of database 0."""
        secret = f":{self.address.password}@" if self.address.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0" if self.port else f"unix://{secret}{self.address.socket}"

    def start(self) -> None:
        """Start the process and return when it answers."""
        log = (self.folder / "redis.log").open("ab")
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--unixsocket", str(self.address.socket), "--save", "", "--daemonize", "no"]
        command += ["--requirepass", self.address.password] if self.address.password else []
        with log:
            self._process = subprocess.Popen(
                [*command, *self.args], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        with self.client() as client:
            while True:
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "redis.log").read_text()
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                    client.ping()
                    return
                assert time.monotonic() < deadline, f"redis-server did not answer within {READY_WITHIN} s"
                time.sleep(0.01)

    def client(self, db: int = 0) -> redis.Redis:
        """Return a plain client of the administrator, for looking and meddling."""
        password = self.address.password or None
        if self.port:
            return redis.Redis(port=self.port, db=db, password=password, socket_timeout=PATIENCE, protocol=2)
        return redis.Redis(unix_socket_path=str(self.address.socket), db=db, password=password, protocol=2)

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

    def restart(self) -> None:
        """Kill and start again, on the same address and folder."""
        self.kill()
        self.start()


@contextlib.contextmanager
def redis_server(folder: Path, *extra_args: str, tcp: bool = True, password: str = "") -> Iterator[RedisServer]:
    """Yield a running server without persistence, unless ``extra_args`` say otherwise; end it afterwards.

    The folder's path has to be short enough for a unix socket in it (108 bytes).
    """
    path = folder / "redis.sock"
    assert len(str(path)) < 100, f"{path} is too long for a unix socket"
    server = RedisServer(folder, Address(free_port() if tcp else 0, path, password), extra_args)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Proxy:
    """A TCP way to a server that can be told to swallow the replies."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.swallow_replies = False
        self.swallow_after = b""
        """Swallow the replies from the request on that contains this."""
        self._spawn(self._accept)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                self._spawn(self._copy, client, server)
                self._spawn(self._copy_replies, server, client)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.swallow_after and self.swallow_after in data:
                    self.swallow_replies = True
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _copy_replies(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.swallow_replies:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Cut all connections."""
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(READY_WITHIN)


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """Yield a proxy to a port of this host."""
    between = Proxy(target)
    try:
        yield between
    finally:
        between.close()
