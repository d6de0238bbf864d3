"""When a waiter looks again by itself: what it was told decides, and how far that can be relied on."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._contest import LOOK_AFTER, QUARANTINE_LOOK
from coordinate._waiting import Wait
from coordinate.types import AcquireAnswer, Held, Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate import Coordinator

_NUMBERS = itertools.count()


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    """A process on a store of its own."""
    with connect(f"memory://contest-{next(_NUMBERS)}") as coordinator:
        yield coordinator


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Quarantined(3600.0), QUARANTINE_LOOK),
        (Quarantined(1.0), 1.0 + LOOK_AFTER),
        (Held(None, 3600.0), 3600.0 + LOOK_AFTER),
    ],
)
def test_a_quarantine_is_looked_at_now_and_then_and_a_holder_when_its_time_is_over(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, answer: AcquireAnswer, expected: float
) -> None:
    """An hour that a jumping clock has made of a minute must not be slept through; a lease is worth no request."""
    slept: list[float] = []
    monkeypatch.setattr(coordinator.backend, "acquire", lambda *_, **__: answer)
    monkeypatch.setattr(Wait, "sleep", lambda _, until: slept.append(until))
    with coordinator.lease("job").contest(7200.0) as contest:
        started = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert not contest.attempt()
        # The first answer opens the waiting channel, the second one is slept on.
        assert not contest.attempt()
        asked = time.clock_gettime(time.CLOCK_BOOTTIME)
        contest.sleep()
    (until,) = slept
    assert started + expected <= until <= asked + expected
