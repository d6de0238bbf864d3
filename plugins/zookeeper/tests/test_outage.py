"""A program that holds one lease and waits for another while no server is there: its cost, and what it prints."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually, opener
from coordinate.types import Granted, Renewed
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zookeeper_ensemble import Ensemble

IDLE = """
import logging, sys, threading, time
from coordinate import connect
from coordinate.errors import CoordinateError

# What we log ourselves is no concern here; what is written nevertheless comes from kazoo or from a dead thread.
logging.getLogger("coordinate").addHandler(logging.NullHandler())
with connect(sys.argv[1], ttl=60) as coordinator:
    lease = coordinator.lease("held").acquire(20)

    def wait():
        try:
            coordinator.lease("taken").acquire(120)
        except CoordinateError as error:
            print(type(error).__name__, flush=True)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    print("waiting", flush=True)
    sys.stdin.readline()
    before = time.process_time()
    time.sleep(6)
    print((time.process_time() - before) / 6, flush=True)
    sys.stdin.readline()
    # The server is back; our connection to it may need another second.
    while lease.alive and lease.doubt is not None:
        time.sleep(0.02)
    lease.check()
    print("held", flush=True)
"""


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Ensemble]:
    """Return a server for this test alone."""
    from zookeeper_ensemble import standalone

    with standalone(tmp_path) as found:
        yield found


def test_an_idle_client_costs_nothing_in_an_outage_and_prints_nothing(mortal: Ensemble) -> None:
    """Two percent of a core at most, no word on stderr, and the lease is still held when the server is back."""
    url = mortal.url("/there")
    with connect(url, ttl=60) as coordinator:
        coordinator.lease("taken").acquire(20)
        with subprocess.Popen(
            [sys.executable, "-c", IDLE, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as idle:
            assert idle.stdin is not None
            assert idle.stdout is not None
            assert idle.stdout.readline() == "waiting\n"
            mortal.each(lambda server: server.kill())
            idle.stdin.write("\n")
            idle.stdin.flush()
            share = float(idle.stdout.readline())
            mortal.start()
            taken = coordinator.lease("other")
            eventually(taken.try_acquire, within=60, what="the server")
            output, errors = idle.communicate("\n", timeout=60)
        assert (output, errors, idle.returncode) == ("held\n", "", 0)
        assert share < 0.02, share
        assert isinstance(coordinator.backend.renew([taken.grant])[0], Renewed)


def test_a_server_that_hangs_is_left_by_a_client_that_keeps_asking(tmp_path: Path) -> None:
    """Its connections stay open, and whoever asks again and again never leaves kazoo the time to ping."""
    from zookeeper_ensemble import ensemble_of_three

    timeout = 0.5
    with ensemble_of_three(tmp_path) as three, opener(ZooKeeperBackend, three.url("/x"), timeout=timeout) as clients:
        backend = clients()
        backend.ping()
        peer = backend._now.sessions.any()._driver._connection._socket.getpeername()[1]
        (hung,) = [server for server in three.servers if server.port == peer]
        hung.pause()
        paused = time.monotonic()
        told: list[str] = []

        def answered() -> bool:
            """Ask once more, at once."""
            try:
                backend.markers("scope")
            except BackendUnavailable as error:
                told.append(str(error))
                return False
            return True

        eventually(answered, within=30, what="an answer of another server")
        assert told
        # Two timeouts until it is given up; then an election, if it was the leader, and a new connection.
        assert time.monotonic() - paused < 15
        hung.resume()


def test_a_server_that_accepts_and_says_nothing_is_left_soon(tmp_path: Path) -> None:
    """The handshake is bounded, too: not by the session's length, as kazoo alone would have it."""
    from zookeeper_ensemble import standalone

    with standalone(tmp_path) as one, socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"zookeeper://127.0.0.1:{silent.getsockname()[1]},{one.hosts}/x"
        with opener(ZooKeeperBackend, url, timeout=0.5) as clients:
            for _ in range(4):
                # kazoo takes the servers in random order: each of these meets the silent one first every other time.
                backend, began = clients(), time.monotonic()
                answer = _until_answered(backend)
                assert isinstance(answer, Granted)
                assert time.monotonic() - began < 10


def _until_answered(backend: ZooKeeperBackend) -> object:
    """Ask for a lease of a minute until there is an answer."""
    found: list[object] = []

    def answered() -> bool:
        """Ask once."""
        with contextlib.suppress(BackendUnavailable):
            found.append(backend.acquire(f"name-{id(backend)}", mint(), 60))
        return bool(found)

    eventually(answered, within=90, what="an answer")
    return found[0]
