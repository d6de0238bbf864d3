"""The server under the benchmarks, and how its packets are counted."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.server import Server

sys.path.append(str(Path(__file__).parents[2] / "plugins" / "zookeeper" / "tests" / "support"))

from zookeeper_ensemble import standalone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zookeeper_ensemble import Ensemble


class Running(NamedTuple):
    """A server, as processes that are started anew can know it."""

    port: int
    pid: int


@contextlib.contextmanager
def server() -> Iterator[Ensemble]:
    """Yield one server of our own that writes to its disk as it always does; end it by its pid afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, standalone(Path(folder)) as running:
        yield running


def packets(port: int) -> int:
    """Return how many packets the server has received; pings, and this question, count."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(b"srvr")
        answer = b"".join(iter(lambda: wire.recv(4096), b"")).decode()
    found = re.search(r"^Received: (\d+)$", answer, re.MULTILINE)
    if found is None:
        message = f"the server does not tell: {answer}"
        raise RuntimeError(message)
    return int(found[1])


def watching(port: int) -> Callable[[], float]:
    """Begin to count packets; what is returned says how many there were since."""
    before = packets(port)
    return lambda: packets(port) - before - 1


def known(ensemble: Ensemble) -> Running:
    """Return its one member."""
    (member,) = ensemble.servers
    return Running(member.port, member.pid)


def of(running: Running) -> Server:
    """Return what common workloads need to know of it."""
    return Server(running.port, running.pid, lambda: watching(running.port))
