"""Contract of steps that cannot be done: by nobody, by this member, not in time, not now, or not on what is left."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coordinate import steps
from coordinate._following import Follower
from coordinate.errors import CommandFailed, Contended, StepDeclined, StepFailed, StepRefused, WaitTimeout
from coordinate.testing.contract import Contract
from coordinate.testing.kit import eventually
from coordinate.types import MarkerState, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.coordinator import Coordinator
    from coordinate.types import MarkerRecord

QUICK = steps.Budget(failures=3, pause=0.05)


def one_step(
    action: Callable[[steps.StepContext], object],
    revision: str = "r1",
    *,
    settled: Callable[[steps.StepContext, MarkerRecord], object] | None = None,
    timeout: float = math.inf,
) -> steps.Plan:
    """Return a plan of a single step."""
    step = steps.Step("migrate", action, settled=settled, timeout=timeout)
    return steps.Plan("site", revision, [step], QUICK)


def stored(coordinator: Coordinator, revision: str = "r1") -> MarkerRecord:
    """Return the step's record."""
    record = coordinator.markers("site").view().find("migrate", revision)
    assert record is not None
    return record


class UnwillingStepsContract(Contract, sealed=True):
    """Part of `coordinate.testing.CoordinatorContract`; needs its fixtures."""

    def test_a_member_that_must_not_lead_waits_for_one_that_may(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """It never asks for the lease: alone it comes to the end of its wait; beside a leader it waits for that one."""
        ran: list[str] = []
        plan = one_step(lambda _: ran.append("led"))
        with pytest.raises(WaitTimeout):
            steps.run(one_step(lambda _: ran.append("follower")), open_coordinator(), timeout=0.3, lead=False)
        with ThreadPoolExecutor() as pool:
            follower = pool.submit(
                steps.run, one_step(lambda _: ran.append("follower")), open_coordinator(), timeout=60.0, lead=False
            )
            assert steps.run(plan, open_coordinator(), timeout=60.0) is steps.Outcome.RAN
            assert follower.result(60) in {steps.Outcome.WAITED, steps.Outcome.ALREADY_DONE}
        assert ran == ["led"]

    def test_who_does_not_wait_is_told_who_is_at_work_and_finds_the_result_later(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """While another member is at work, so without any wait for it; nothing of that one is disturbed."""
        begun, go_on = threading.Event(), threading.Event()
        led: list[str] = []
        ours = one_step(lambda _: led.append("ours"))

        def work(_: steps.StepContext) -> None:
            begun.set()
            assert go_on.wait(60)

        impatient = open_coordinator()
        with ThreadPoolExecutor(1) as pool:
            leader = pool.submit(steps.run, one_step(work), open_coordinator(), timeout=60)
            try:
                assert begun.wait(60)
                for lead in (True, False):
                    with pytest.raises(Contended) as contended:
                        steps.run(ours, impatient, timeout=60, lead=lead, blocking=False)
                    assert contended.value.since == stored(impatient).started
                    holder = contended.value.holder
                    assert (holder is not None and str(holder.owner) in str(contended.value)) == lead
                with pytest.raises(Contended, match="held by"):
                    impatient.lease("site").acquire(60, blocking=False)
            finally:
                go_on.set()
            assert leader.result(60) is steps.Outcome.RAN
        assert steps.run(ours, impatient, blocking=False) is steps.Outcome.ALREADY_DONE
        assert led == []
        record = stored(impatient)
        assert (record.attempts, record.failures, record.crashes) == (1, 0, 0)

    def test_who_does_not_wait_leads_what_is_free_and_leaves_what_has_to_be_tried_again(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """A failure within the budget is recorded, and another plan's turn comes; the last one is a failure."""
        coordinator = open_coordinator()

        def fail(_: steps.StepContext) -> None:
            message = "no"
            raise RuntimeError(message)

        plan = one_step(fail)._replace(budget=steps.Budget(failures=2, pause=3600.0))
        with pytest.raises(Contended, match="failed") as contended:
            steps.run(plan, coordinator, timeout=60, blocking=False)
        assert (contended.value.retry_after, stored(coordinator).failures) == (3600.0, 1)
        assert steps.run(one_step(lambda _: None, "r2"), coordinator, blocking=False) is steps.Outcome.RAN
        with pytest.raises(StepFailed):
            steps.run(plan, coordinator, timeout=60, blocking=False)

    def test_a_plan_may_know_of_tokens_that_nobody_claimed(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """Left elsewhere, by leaders of a store that has forgotten its tokens since."""
        floor = 1 << 40
        assert steps.run(one_step(lambda _: None), open_coordinator(), floor=floor) is steps.Outcome.RAN
        assert stored(open_coordinator()).token > floor

    def test_who_does_not_wait_declines_at_once(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """However patient the step is: waiting for one that can is what it was told not to do."""

        def decline(_: steps.StepContext) -> None:
            message = "no key here"
            raise StepDeclined(message)

        with pytest.raises(StepDeclined, match="no key here"):
            steps.run(one_step(decline), open_coordinator(), timeout=60, blocking=False)
        assert stored(open_coordinator()).state is MarkerState.INTERRUPTED

    def test_a_command_may_have_a_limit_below_that_of_its_step(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """It is stopped at its own limit, and the attempt has failed with the code of a deadline."""

        def action(context: steps.StepContext) -> None:
            context.run(["sleep", "60"], timeout=0.3)

        with pytest.raises(StepFailed, match=r"longer than 0\.3 s"):
            steps.run(one_step(action)._replace(budget=steps.Budget(failures=1)), open_coordinator(), timeout=60.0)
        assert stored(open_coordinator()).exit_code == WaitTimeout.exit_code

    def test_a_refused_step_ends_every_member_after_one_attempt(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """No budget is gone through; the code and the reason are known to all, and to those that come at once."""
        tries: list[int] = []

        def refuse(_: steps.StepContext) -> None:
            tries.append(1)
            time.sleep(0.2)
            message = "half-made"
            raise StepRefused(message, 81)

        plan = one_step(refuse)
        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(steps.run, plan, open_coordinator(), timeout=60) for _ in range(3)]
            errors = [future.exception(timeout=60) for future in futures]
        for error in errors:
            assert isinstance(error, StepFailed)
            assert "half-made" in str(error)
            assert error.record is not None
            assert (error.record.exit_code, error.record.attempts) == (81, 1)
        with pytest.raises(StepFailed, match="refused"):
            steps.run(plan, open_coordinator(), timeout=60)
        assert len(tries) == 1

    def test_a_refusal_is_looked_at_again_soon_and_is_no_failure(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """What was wrong may have been put right; no operator has to clear the record, nor to wait for the back-off."""

        def refuse(_: steps.StepContext) -> None:
            message = "not yet"
            raise StepRefused(message)

        impatient = QUICK._replace(recheck=0.01, backoff=3600.0)
        for attempts in range(1, 5):
            with pytest.raises(StepFailed, match="not yet"):
                steps.run(one_step(refuse)._replace(budget=impatient), open_coordinator(), timeout=60)
            record = stored(open_coordinator())
            assert (record.attempts, record.failures, record.verdict) == (attempts, 0, Verdict.REFUSED)
            time.sleep(0.05)
        willing = one_step(lambda _: None)._replace(budget=impatient)
        assert steps.run(willing, open_coordinator(), timeout=60) is steps.Outcome.RAN

    def test_what_was_given_up_is_not_tried_again_before_the_back_off_is_over(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """Then once, by whoever starts later; its failure gives it up again."""
        tries: list[int] = []

        def fail(_: steps.StepContext) -> None:
            tries.append(1)
            message = "no"
            raise RuntimeError(message)

        def ends(backoff: float) -> int:
            budget = QUICK._replace(recheck=0.01, backoff=backoff)
            with pytest.raises(StepFailed):
                steps.run(one_step(fail)._replace(budget=budget), open_coordinator(), timeout=60)
            time.sleep(0.05)
            return len(tries)

        assert [ends(3600.0), ends(3600.0), ends(0.01), ends(3600.0)] == [3, 3, 4, 4]

    def test_who_declines_waits_for_a_member_that_can(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """It costs the fleet nothing, and the one that declined does not lead this step again."""
        declined: list[int] = []

        def decline(_: steps.StepContext) -> None:
            declined.append(1)
            message = "no key here"
            raise StepDeclined(message, 81)

        unable, able = one_step(decline), one_step(lambda _: time.sleep(0.2))
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(steps.run, unable, open_coordinator(), timeout=60) for _ in range(2)]
            eventually(lambda: len(declined) == 2, what="both have declined")
            assert steps.run(able, open_coordinator(), timeout=60) is steps.Outcome.RAN
            assert [future.result(timeout=60) for future in waiting] == [steps.Outcome.WAITED] * 2
        assert len(declined) == 2
        record = stored(open_coordinator())
        assert (record.state, record.failures, record.crashes) == (MarkerState.DONE, 0, 0)

    @pytest.mark.parametrize(("patience", "timeout"), [(math.inf, 1.5), (0.5, 60.0), (0.0, 60.0)])
    def test_who_declined_ends_with_its_reason_when_nobody_can(
        self, open_coordinator: Callable[[], Coordinator], patience: float, timeout: float
    ) -> None:
        """At the end of the wait, after a standstill, or at once, as it said; nothing is held against the step."""
        tries: list[int] = []

        def decline(_: steps.StepContext) -> None:
            tries.append(1)
            message = "no key here"
            raise StepDeclined(message, 82, patience)

        started = time.monotonic()
        with pytest.raises(StepDeclined, match="no key here") as declined:
            steps.run(one_step(decline), open_coordinator(), timeout=timeout)
        assert declined.value.exit_code == 82
        assert min(patience, timeout) <= time.monotonic() - started < min(patience, timeout) + 15
        record = stored(open_coordinator())
        assert (tries, record.state, record.failures) == ([1], MarkerState.INTERRUPTED, 0)

    def test_patience_does_not_end_while_somebody_is_at_work(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """A step that takes longer than the patience is no standstill."""
        begun = threading.Event()

        def decline(_: steps.StepContext) -> None:
            begun.set()
            message = "no key here"
            raise StepDeclined(message, 81, 2.0)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(steps.run, one_step(decline), open_coordinator(), timeout=60)
            assert begun.wait(60)
            steps.run(one_step(lambda _: time.sleep(4.0)), open_coordinator(), timeout=60)
            assert waiting.result(timeout=60) is steps.Outcome.WAITED

    def test_an_earlier_attempt_that_does_not_end_is_a_failure_that_all_know(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """Recorded with its code, within the budget; what the earlier attempt noted is not forgotten."""

        def die(work: steps.StepContext) -> None:
            work.note(session="7")
            raise KeyboardInterrupt

        def unsettled(_: steps.StepContext, before: MarkerRecord) -> None:
            message = f"session {before.notes['session']} is still there"
            raise CommandFailed(message, 83, message)

        with pytest.raises(KeyboardInterrupt):
            steps.run(one_step(die), open_coordinator(), timeout=60)
        plan = one_step(lambda _: None, settled=unsettled)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(steps.run, plan, open_coordinator(), timeout=60) for _ in range(2)]
            errors = [future.exception(timeout=60) for future in futures]
        assert [type(error) for error in errors] == [StepFailed, StepFailed]
        record = stored(open_coordinator())
        assert (record.state, record.exit_code, record.failures) == (MarkerState.FAILED, 83, 3)
        assert (record.verdict, record.notes["session"]) == (Verdict.SPENT, "7")
        assert "session 7 is still there" in record.detail

    def test_what_failed_at_another_revision_is_settled_until_a_later_one_is_done(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """Its notes tell the next attempt what is half done; once that has succeeded they are history."""
        told: list[str] = []

        def fail(work: steps.StepContext) -> None:
            work.note(half_done="x")
            message = "no"
            raise RuntimeError(message)

        def settled(_: steps.StepContext, before: MarkerRecord) -> None:
            told.append(f"{before.revision} {before.state.value} {before.notes['half_done']}")

        with pytest.raises(StepFailed):
            steps.run(one_step(fail)._replace(budget=steps.Budget(failures=1)), open_coordinator(), timeout=60)
        assert steps.run(one_step(lambda _: None, "r2", settled=settled), open_coordinator()) is steps.Outcome.RAN
        assert told == ["r1 failed x"]
        assert steps.run(one_step(lambda _: None, "r3", settled=settled), open_coordinator()) is steps.Outcome.RAN
        assert told == ["r1 failed x"]

    def test_a_reset_forgives_failures_and_forgets_no_note(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """What is half done stays so, whatever an operator clears; the next attempt is told."""
        told: list[str] = []

        def fail(work: steps.StepContext) -> None:
            work.note(half_done="x")
            message = "no"
            raise StepRefused(message)

        with pytest.raises(StepFailed):
            steps.run(one_step(fail), open_coordinator(), timeout=60)
        operator = open_coordinator()
        assert operator.markers("site").reset("migrate", "r1")
        record = stored(operator)
        assert (record.state, record.failures, record.verdict) == (MarkerState.INTERRUPTED, 0, Verdict.OPEN)
        again = one_step(lambda _: None, settled=lambda _, before: told.append(before.notes["half_done"]))
        assert steps.run(again, open_coordinator(), timeout=60) is steps.Outcome.RAN
        assert told == ["x"]
        assert operator.markers("site").reset("migrate", "r1")
        assert not operator.markers("site").reset("migrate", "r1")

    def test_an_attempt_has_a_time_limit_of_its_own(self, coordinator: Coordinator) -> None:
        """All its commands together; it has failed with its last lines."""

        def slow(work: steps.StepContext) -> None:
            work.run(["sleep", "0.6"])
            work.run(["sh", "-c", "echo altering; exec sleep 600"])

        plan = one_step(slow, timeout=3.0)._replace(budget=steps.Budget(failures=1))
        started = time.monotonic()
        with pytest.raises(StepFailed, match="altering"):
            steps.run(plan, coordinator, timeout=60)
        assert time.monotonic() - started < 30
        record = stored(coordinator)
        assert (record.state, record.exit_code) == (MarkerState.FAILED, WaitTimeout.exit_code)

    def test_a_follower_does_not_take_a_failure_within_the_budget_for_the_end(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """It ends when whoever has recorded the failure knew it to be the last one."""
        follower, tries = open_coordinator(), []

        def work(_: steps.StepContext) -> None:
            tries.append(1)
            message = f"failure {len(tries)}"
            raise RuntimeError(message)

        plan = one_step(work)._replace(budget=steps.Budget(failures=2, pause=1.0))
        markers = follower.markers("site")
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(steps.run, plan, open_coordinator(), timeout=60)
            eventually(lambda: any(record.failures >= 1 for record in markers.view().records), what="the first failure")
            record = Follower(markers, "migrate", "r1").wait(follower, 60.0)
            assert isinstance(running.exception(timeout=60), StepFailed)
        assert (record.failures, record.verdict) == (2, Verdict.SPENT)
        # As for a member that starts later than the back-off: somebody may try once more.
        with pytest.raises(WaitTimeout, match="failure 2"):
            Follower(markers, "migrate", "r1", backoff=-3600.0).wait(follower, 0.2)
