"""The member under the benchmarks, and how its requests are counted."""

from __future__ import annotations

import contextlib
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.server import Server
from tests.stacks.etcd import etcd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stacks.etcd import Etcd

_KEEPALIVE = "LeaseKeepAlive"


class Running(NamedTuple):
    """A member, as processes that are started anew can know it."""

    port: int
    pid: int


@contextlib.contextmanager
def server() -> Iterator[Etcd]:
    """Yield one member of our own that writes to its disk as it always does; end it by its pid afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, etcd(Path(folder)) as running:
        yield running


def requests(port: int) -> dict[str, int]:
    """Return how many messages the member has received, by the method that they are for.

    Its own figures: a stream counts with each message that is sent on it, everything else once.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, int] = {}
    for line in re.finditer(r'^grpc_server_msg_received_total\{grpc_method="(\w+)".*\} (\S+)$', text, re.MULTILINE):
        found[line[1]] = found.get(line[1], 0) + round(float(line[2]))
    return found


def watching(port: int, *, keepalive: bool = True) -> Callable[[], float]:
    """Begin to count requests; what is returned says how many there were since."""
    before = requests(port)

    def stop() -> float:
        after = requests(port)
        return sum(
            count - before.get(method, 0) for method, count in after.items() if keepalive or method != _KEEPALIVE
        )

    return stop


def of(running: Running, *, keepalive: bool = True) -> Server:
    """Return what common workloads need to know of it; keepalives may be left out of what is counted."""
    return Server(running.port, running.pid, lambda: watching(running.port, keepalive=keepalive))


def known(ensemble: Etcd) -> Running:
    """Return its one member."""
    (member,) = ensemble.members
    return Running(member.port, member.pid)
