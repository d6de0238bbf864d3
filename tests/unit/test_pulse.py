"""A leader of another lease store waits for a step that says nothing."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.steps import Outcome, Plan, Step, StepContext, run

if TYPE_CHECKING:
    import pytest

_NUMBERS = itertools.count()
TTL = 1.2


def test_a_silent_step_of_twice_the_ttl_is_not_taken_for_dead() -> None:
    """While stores change, the old leader's work and the new one's never overlap."""
    number = next(_NUMBERS)
    markers = f"memory://pulse-markers-{number}"
    begun, spans = threading.Event(), []

    def work(context: StepContext) -> None:
        since = time.monotonic()
        begun.set()
        time.sleep(2.2 * TTL if context.revision == "r1" else 0.0)
        spans.append((since, time.monotonic()))

    def boot(revision: str) -> Outcome:
        with connect(f"memory://pulse-{revision}-{number}", markers_url=markers, ttl=TTL) as coordinator:
            return run(Plan("site", revision, [Step("migrate", work)]), coordinator, timeout=60)

    outcomes: list[Outcome] = []
    old = threading.Thread(target=lambda: outcomes.append(boot("r1")))
    old.start()
    assert begun.wait(30)
    assert boot("r2") is Outcome.RAN
    old.join()
    assert outcomes == [Outcome.RAN]
    (first, second) = spans
    assert first[1] <= second[0]


def test_a_store_that_does_not_take_the_pulse_does_not_end_the_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the leader may go on is its lease's question; it says that others may not know of it."""
    from coordinate.errors import BackendUnavailable
    from coordinate.marker import Markers

    def no_answer(*_: object) -> None:
        message = "no answer"
        raise BackendUnavailable(message)

    monkeypatch.setattr(Markers, "beat", no_answer)
    with connect(f"memory://pulse-{next(_NUMBERS)}", ttl=TTL) as coordinator:
        plan = Plan("site", "r1", [Step("migrate", lambda _: time.sleep(TTL))])
        assert run(plan, coordinator, timeout=60) is Outcome.RAN
    assert "not shown to be at work" in caplog.text
