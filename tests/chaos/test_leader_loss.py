"""Fleets of three that run guarded steps while the ensemble loses its leader: a referee reads what happened."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from coordinate import connect
from coordinate.testing import eventually
from tests.chaos.judge import Fleet
from tests.chaos.replica import TTL
from tests.stacks.etcd import etcd

# The plugin's tests own its ensemble; under pytest's importlib mode their folder is not on the path.
sys.path.append(str(Path(__file__).parents[2] / "plugins" / "zookeeper" / "tests" / "support"))

from zookeeper_ensemble import ensemble_of_three

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from zookeeper_ensemble import Server

STEP = "migrate"
DEAD = ("kill", STEP, "inside")
FOREIGN = re.compile(r"Traceback|^[EWIF]\d{4} |grpc[._]|kazoo[._]|E0000|Exception |No handlers", re.MULTILINE)
"""The clients' own logs, and threads that end with an error."""


class Store(NamedTuple):
    """A running ensemble of three.

    Args:
        url: of a place in it.
        lose: ends its leader, as a crash would (``killed``), or stops it (``paused``).
        term: how many elections there have been.
        noticed: seconds after which a leader that is gone has been replaced, besides what a busy machine adds.
    """

    url: str
    lose: Callable[[str], object]
    term: Callable[[], int]
    noticed: float


@contextlib.contextmanager
def on_etcd(folder: Path) -> Iterator[Store]:
    """Three members of etcd."""
    with etcd(folder, 3) as three:

        def lose(how: str) -> None:
            """Hurt the leader."""
            leader = three.leader()
            leader.kill() if how == "killed" else leader.signal(signal.SIGSTOP)

        def term() -> int:
            """Ask for it."""
            with connect(three.url) as coordinator:
                return int(coordinator.backend.describe()["leader"].rpartition(" ")[2])

        yield Store(f"{three.url}/chaos", lose, term, 0.5)


@contextlib.contextmanager
def on_zookeeper(folder: Path) -> Iterator[Store]:
    """Three servers of ZooKeeper; they miss a silent leader after twenty ticks of a tenth of a second."""
    with ensemble_of_three(folder) as three:

        def lose(how: str) -> None:
            """Hurt the leader."""
            leader = three.leader()
            leader.kill() if how == "killed" else leader.pause()

        yield Store(three.url("/chaos"), lose, lambda: max(map(epoch, three.servers)), 2.0)


def epoch(server: Server) -> int:
    """Return the number of the election whose leader a server follows, 0 if it does not say: a half of the zxid."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1) as wire:
        wire.settimeout(1)
        wire.sendall(b"srvr")
        answer = b"".join(iter(lambda: wire.recv(4096), b"")).decode("utf-8", "replace")
        if found := re.search(r"^Zxid: 0x([0-9a-f]+)$", answer, re.MULTILINE):
            return int(found[1], 16) >> 32
    return 0


STORES: dict[str, Callable[[Path], AbstractContextManager[Store]]] = {"etcd": on_etcd, "zookeeper": on_zookeeper}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(("how", "fault"), [("killed", None), ("killed", DEAD), ("paused", DEAD)])
def test_a_leader_lost_in_the_middle_of_a_guarded_step(
    tmp_path: Path, kind: str, how: str, fault: tuple[str, str, str] | None
) -> None:
    """No two work at once, each step is done once; where the holder dies, too, the next one leads in time."""
    folder, servers = tmp_path / "fleet", tmp_path / "servers"
    folder.mkdir()
    servers.mkdir()
    with STORES[kind](servers) as store:
        before = store.term()
        fleet = Fleet(store.url, folder, fault)
        try:
            eventually(lambda: begun(fleet), within=60, what="the step")
            store.lose(how)
            codes = fleet.finish()
        finally:
            fleet.end()
        elections = store.term() - before
    fleet.judge(codes)
    history = fleet.history()
    if fault is not None:
        (hurt,) = (int(str(line["t"])) for line in history if line["what"] == "hurt")
        after = [int(str(line["t"])) for line in history if line["what"] == "leading" and int(str(line["t"])) > hurt]
        # One election is what we cause; on a busy machine there may be more, and each new leader gives all server
        # leases, or sessions, their full length again.
        assert elections >= 1
        assert (min(after) - hurt) / 1e9 <= (1 + elections) * TTL + store.noticed + 2, (elections, fleet.told())
    errors = "".join(path.read_text() for path in sorted(folder.glob("stderr-*")))
    assert not FOREIGN.search(errors), errors


def begun(fleet: Fleet) -> bool:
    """Return whether somebody works at the step, or was hurt there."""
    return any(line["what"] == "hurt" or (line["what"] == "begin" and line["step"] == STEP) for line in fleet.history())
