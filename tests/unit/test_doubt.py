"""A store that knows, between renewals, that a lease's session is interrupted: nothing new begins, nothing is lost."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.errors import LeaseInDoubt, LeaseLost
from coordinate.steps import Outcome, Plan, Step, run
from coordinate.types import MarkerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate import Coordinator
    from coordinate.steps import StepContext

_NUMBERS = itertools.count()


class Line:
    """The connection of a coordinator's lease store; it can be interrupted."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.cut = False


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Return the connection of a coordinator on a store of its own, with leases of two seconds and a half."""
    with connect(f"memory://doubt-{next(_NUMBERS)}", ttl=2.5) as coordinator:
        line = Line(coordinator)
        monkeypatch.setattr(coordinator.backend, "doubt", lambda _: "no connection" if line.cut else None)
        yield line


def test_in_doubt_check_raises_and_the_lease_is_not_lost(line: Line) -> None:
    """While it lasts nothing may rely on the lease; afterwards it is what it was, with the same token."""
    with line.coordinator.lease("job") as lease:
        token = lease.token
        line.cut = True
        with pytest.raises(LeaseInDoubt, match="no connection"):
            lease.check()
        assert (lease.held, lease.alive, lease.lost) == (False, True, None)
        lease.check_alive()
        line.cut = False
        lease.check()
        assert (lease.held, lease.token) == (True, token)


def test_the_lease_is_renewed_although_it_is_in_doubt(line: Line) -> None:
    """The renewal is what ends the doubt, or the lease: it must go on."""
    with line.coordinator.lease("job") as lease:
        before = lease.deadline
        line.cut = True
        limit = time.monotonic() + 5
        while lease.deadline <= before and time.monotonic() < limit:
            time.sleep(0.02)
        assert lease.deadline > before
        line.cut = False


def test_leaving_the_body_in_doubt_gives_the_lease_back(line: Line) -> None:
    """A doubt is no loss: what ended before is not declared void afterwards."""
    with line.coordinator.lease("job"):
        line.cut = True
    line.cut = False
    assert line.coordinator.backend.holder("job") is None


def test_a_running_command_bears_a_doubt_and_the_next_step_waits_for_its_end(line: Line) -> None:
    """The command is not stopped, and nothing is written or begun before the connection is back."""
    times: list[tuple[str, float]] = []

    def first(context: StepContext) -> None:
        threading.Timer(0.2, lambda: setattr(line, "cut", True)).start()
        threading.Timer(0.9, note("mended", then=lambda: setattr(line, "cut", False))).start()
        context.run([sys.executable, "-c", "import time; time.sleep(0.5)"])
        note("ended")()

    def note(what: str, then: Callable[[], object] = lambda: None) -> Callable[[], None]:
        def noted() -> None:
            times.append((what, time.monotonic()))
            then()

        return noted

    plan = Plan("scope", "r1", [Step("one", first), Step("two", lambda _: note("two")())])
    assert run(plan, line.coordinator, timeout=30) is Outcome.RAN
    assert [what for what, _ in times] == ["ended", "mended", "two"]
    view = line.coordinator.markers("scope").view()
    assert {record.attempts for record in view.records} == {1}
    assert {record.state for record in view.records} == {MarkerState.DONE}


def test_a_doubt_that_lasts_ends_with_the_lease(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written under it; whoever leads next finds the attempt as it was left."""
    attempts: list[int] = []

    def action(context: StepContext) -> None:
        attempts.append(context.lease.token)
        if len(attempts) == 1:
            monkeypatch.setattr(line.coordinator.backend, "renew", _no_answer(line))
            line.cut = True

    plan = Plan("scope", "r1", [Step("one", action)])
    assert run(plan, line.coordinator, timeout=30) is Outcome.RAN
    assert len(attempts) == 2
    assert attempts[0] < attempts[1]


def _no_answer(line: Line) -> Callable[[object], object]:
    """Fail all renewals until the lease of the time is over, then mend the connection."""
    from coordinate.types import Unknown

    genuine, ends = line.coordinator.backend.renew, time.monotonic() + 2.6

    def renew(grants: list[object]) -> object:
        if time.monotonic() < ends:
            return [Unknown("no connection") for _ in grants]
        line.cut = False
        return genuine(grants)

    threading.Timer(2.7, lambda: setattr(line, "cut", False)).start()
    return renew


def test_a_doubt_is_a_loss_for_those_who_know_nothing_of_doubts() -> None:
    """Code that handles `LeaseLost` handles this, too."""
    assert issubclass(LeaseInDoubt, LeaseLost)
