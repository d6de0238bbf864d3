"""A program that holds one lease and waits for another while no server is there: its cost, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.testing import eventually
from coordinate.types import Renewed

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
