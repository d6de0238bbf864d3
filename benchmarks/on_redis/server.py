"""The server under the benchmarks, and how its requests are counted."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.server import Server
from tests.servers import RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE = 30.0


@contextlib.contextmanager
def server() -> Iterator[RedisServer]:
    """Yield a server of our own, without persistence, in a temporary folder; end it by its pid afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, redis_server(Path(folder)) as running:
        yield running


class Requests:
    """Counts what clients ask for, by MONITOR, which tells their requests from the commands that scripts run.

    The server's commandstats count both. Nothing is read until the end, so watching costs this process nothing.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b"MONITOR\r\n")
        if self._lines.readline() != b"+OK\r\n":
            message = "the server refused MONITOR"
            raise RuntimeError(message)
        self._port = port

    def stop(self) -> Counter[str]:
        """Return how often each command was asked for."""
        with self._socket, self._lines, socket.create_connection(("127.0.0.1", self._port), _PATIENCE) as other:
            mark = f"bench-{os.urandom(8).hex()}".encode()
            other.sendall(b"ECHO " + mark + b"\r\n")
            found: Counter[str] = Counter()
            while mark not in (line := self._lines.readline()):
                source, _, request = line.partition(b"] ")
                if not source.endswith(b" lua"):
                    found[request.split(b'"')[1].decode().upper()] += 1
            return found


def of(running: RedisServer) -> Server:
    """Return what common workloads need to know of it."""

    def watching() -> Callable[[], float]:
        requests = Requests(running.port)
        return lambda: requests.stop().total()

    return Server(running.port, running.pid, watching)
