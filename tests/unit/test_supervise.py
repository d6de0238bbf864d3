"""Commands under a lease when time is short: a slow machine is never a failing command."""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING

import pytest

from coordinate import _guard, connect
from coordinate._supervise import Command
from coordinate.errors import LeaseLost
from coordinate.process import GuardedChild
from coordinate.testing import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coordinate.coordinator import Coordinator

_NUMBERS = itertools.count()


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    """Return a member of a fleet of its own."""
    with connect(f"memory://supervise-{next(_NUMBERS)}", ttl=2.5) as coordinator:
        yield coordinator


def test_a_guardian_that_starts_too_late_is_a_lost_lease_and_no_failing_command(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Renewed all the while, but the command could not be guarded: it does not run, and it has not failed."""
    slow = tmp_path / "slow_guard.py"
    slow.write_text(f"import runpy, time\ntime.sleep(3)\nrunpy.run_path({_guard.__file__!r}, run_name='__main__')\n")
    monkeypatch.setattr(_guard, "__file__", str(slow))
    ran = tmp_path / "ran"
    with pytest.raises(LeaseLost), coordinator.lease("slow") as lease:
        coordinator.supervise(lease, Command(["touch", str(ran)])).run()
    assert not ran.exists()


def test_the_guardian_is_always_told_the_latest_deadline(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was slow to tell an earlier renewal does not take back what a later one told."""
    told: list[float] = []
    entered, go_on = threading.Event(), threading.Event()
    real = GuardedChild.extend

    def extend(child: GuardedChild, deadline: float) -> bool:
        if not entered.is_set():
            # The first word, from the thread that started the command, is held up on its way.
            entered.set()
            assert go_on.wait(10)
        told.append(deadline)
        return real(child, deadline)

    monkeypatch.setattr(GuardedChild, "extend", extend)
    with coordinator.lease("job") as lease:
        reader, writer = os.pipe()
        runner = coordinator.supervise(lease, Command(["cat"], stdin=reader))
        running = threading.Thread(target=runner.run)
        running.start()
        assert entered.wait(10)
        renewing = threading.Thread(target=lease.extend, args=(coordinator.clock.now(), 2.5))
        renewing.start()
        go_on.set()
        renewing.join(10)
        eventually(lambda: len(told) >= 2, within=10, what="both words")
        os.close(writer)
        running.join(10)
        os.close(reader)
        assert told == sorted(told)
