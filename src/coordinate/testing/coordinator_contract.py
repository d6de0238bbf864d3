"""Contract of leases, markers and steps as people use them, on any store."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coordinate import steps
from coordinate._supervise import Command
from coordinate.errors import AcquireTimeout, Interrupted, LeaseLost, StaleToken, StepFailed, WaitTimeout
from coordinate.testing.kit import eventually
from coordinate.testing.steps_contract import UnwillingStepsContract
from coordinate.types import LossReason, MarkerState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coordinate.coordinator import Coordinator


class CoordinatorContract(UnwillingStepsContract, sealed=True):
    """Subclass with a fixture ``open_coordinator``: returns a new `Coordinator` of the same store at each call."""

    ttl = 6.0
    """Length of leases in the tests, in seconds; `open_coordinator` has to use it. A busy machine has to keep it."""
    short_ttl = 4.0
    """The same where a test has to live through it."""

    @pytest.fixture
    def coordinator(self, open_coordinator: Callable[[], Coordinator]) -> Coordinator:
        """One member."""
        return open_coordinator()

    @pytest.fixture
    def other(self, open_coordinator: Callable[[], Coordinator]) -> Coordinator:
        """Another member."""
        return open_coordinator()

    def test_a_held_lease_passes_its_checks_and_a_released_one_does_not(self, coordinator: Coordinator) -> None:
        """The context manager brackets ownership."""
        with coordinator.lease("job") as lease:
            lease.check()
            assert lease.token > 0
            assert 0 < lease.remaining <= self.ttl
        assert not lease.held
        assert lease.lost is None
        with pytest.raises(LeaseLost):
            lease.check()

    def test_members_exclude_each_other_and_say_who_holds_it(
        self, coordinator: Coordinator, other: Coordinator
    ) -> None:
        """A timeout is a timeout, not a falsy value; trying once is False."""
        with coordinator.lease("job"):
            assert other.lease("job").try_acquire() is False
            with pytest.raises(AcquireTimeout, match="held by"):
                other.lease("job").acquire(timeout=0.1)
        assert other.lease("job").try_acquire() is True

    def test_a_lease_is_renewed_for_as_long_as_it_is_held(self, coordinator: Coordinator, other: Coordinator) -> None:
        """After its ttl it is still ours, with the same token."""
        with coordinator.lease("long", ttl=self.short_ttl) as lease:
            token = lease.token
            with pytest.raises(AcquireTimeout):
                other.lease("long").acquire(timeout=1.3 * self.short_ttl)
            lease.check()
            assert lease.token == token

    def test_a_waiter_gets_the_lease_when_it_is_released(self, coordinator: Coordinator, other: Coordinator) -> None:
        """Hand-over does not wait for any ttl; tokens grow."""
        first = coordinator.lease("handed", ttl=600).acquire()
        token = first.token
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.lease("handed").acquire, 60.0)
            time.sleep(0.1)
            first.release()
            second = waiting.result(timeout=60)
        assert second.token > token
        second.release()

    def test_ten_waiters_each_get_their_turn(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """Nobody is forgotten and no two overlap."""
        inside, most, tokens = [0], [0], []

        def work() -> None:
            with open_coordinator().lease("turns") as lease:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                tokens.append(lease.token)
                time.sleep(0.002)
                inside[0] -= 1

        with ThreadPoolExecutor(10) as pool:
            for future in [pool.submit(work) for _ in range(10)]:
                future.result(timeout=60)
        assert most == [1]
        assert tokens == sorted(set(tokens))

    def test_a_broken_lease_is_lost_with_its_reason(self, coordinator: Coordinator, other: Coordinator) -> None:
        """The holder is told, check fails, and leaving the body raises."""
        told = threading.Event()
        with pytest.raises(LeaseLost), coordinator.lease("broken") as lease:
            lease.on_lost(lambda _: told.set())
            other.backend.break_lease("broken")
            assert told.wait(60)
            assert lease.lost is not None
            assert lease.lost.reason is LossReason.BROKEN
            assert not lease.held

    def test_a_loss_never_masks_the_bodys_own_error(self, coordinator: Coordinator) -> None:
        """The body's error is the one that arrives."""
        with pytest.raises(ZeroDivisionError), coordinator.lease("masked") as lease:
            lease.abandon()
            raise ZeroDivisionError

    def test_a_signal_ends_a_wait(self, coordinator: Coordinator, other: Coordinator) -> None:
        """Interrupted, with the number for the exit code; the line of waiters is left."""
        with coordinator.lease("busy"), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.lease("busy").acquire, 300.0)
            time.sleep(0.1)
            other.interrupt(signal.SIGTERM)
            with pytest.raises(Interrupted) as stopped:
                waiting.result(timeout=60)
        assert stopped.value.signum == signal.SIGTERM

    def test_a_guarded_command_ends_with_its_lease(
        self, coordinator: Coordinator, other: Coordinator, tmp_path: Path
    ) -> None:
        """Breaking the lease kills the command and what it started in a session of its own."""
        beat = tmp_path / "beat"
        script = f"setsid sh -c 'while :; do echo x >> {beat}; sleep 0.02; done' & sleep 600"

        def break_it() -> None:
            eventually(beat.exists, what="the command")
            other.backend.break_lease("guarded")

        with pytest.raises(LeaseLost), coordinator.lease("guarded") as lease:
            threading.Thread(target=break_it).start()
            coordinator.supervise(lease, Command(["sh", "-c", script], grace=0.1)).run()
        size = beat.stat().st_size
        assert size > 0
        time.sleep(0.2)
        assert beat.stat().st_size == size

    def test_work_runs_once_over_the_fleet(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """One runs it, the others wait for it, a latecomer finds it done."""
        runs: list[int] = []

        def work() -> None:
            time.sleep(0.2)
            runs.append(1)

        with ThreadPoolExecutor(5) as pool:
            futures = [pool.submit(open_coordinator().run_once, "migrate", "r1", work) for _ in range(5)]
            outcomes = sorted(future.result(timeout=60).value for future in futures)
        assert len(runs) == 1
        assert outcomes.count("ran") == 1
        assert open_coordinator().run_once("migrate", "r1", work) is steps.Outcome.ALREADY_DONE
        assert open_coordinator().run_once("migrate", "r2", work) is steps.Outcome.RAN

    def test_a_failure_is_known_to_everybody(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """Where it ran the error itself arrives, elsewhere its record; nobody hangs."""

        def work() -> None:
            time.sleep(0.2)
            message = "no such table"
            raise RuntimeError(message)

        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(open_coordinator().run_once, "bad", "r1", work) for _ in range(3)]
            errors = [future.exception(timeout=60) for future in futures]
        kinds = sorted(type(error).__name__ for error in errors)
        assert kinds == ["RuntimeError", "StepFailed", "StepFailed"]
        assert any(isinstance(error, StepFailed) and "no such table" in str(error) for error in errors)

    def test_the_budget_is_shared_and_reset_by_an_operator(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """Three failures in all, whoever has them; after a reset it is tried again."""
        tries: list[int] = []

        def work(_: steps.StepContext) -> None:
            tries.append(1)
            if len(tries) <= 3:
                message = "not yet"
                raise RuntimeError(message)

        plan = steps.Plan("site", "r1", [steps.Step("migrate", work)], steps.Budget(failures=3, pause=0.05))
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(steps.run, plan, open_coordinator(), timeout=60) for _ in range(2)]
            assert all(isinstance(future.exception(timeout=60), StepFailed) for future in futures)
        assert len(tries) == 3
        operator = open_coordinator()
        record = operator.markers("site").view().find("migrate", "r1")
        assert record is not None
        assert (record.state, record.failures, record.attempts) == (MarkerState.FAILED, 3, 3)
        assert operator.markers("site").reset("migrate", "r1")
        assert steps.run(plan, open_coordinator(), timeout=60) is steps.Outcome.RAN

    def test_steps_run_in_order_and_only_what_is_missing(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """A takeover continues behind what is done; settled is asked about what was begun."""
        ran: list[str] = []
        settled: list[str] = []

        def stop(_: steps.StepContext) -> None:
            message = "the first leader dies here"
            raise KeyboardInterrupt(message)

        def plan(second: Callable[[steps.StepContext], object]) -> steps.Plan:
            return steps.Plan(
                "site",
                "r1",
                [
                    steps.Step("one", lambda _: ran.append("one")),
                    steps.Step("two", second, settled=lambda _, record: settled.append(record.state.value)),
                    steps.Step("three", lambda _: ran.append("three")),
                ],
            )

        with pytest.raises(KeyboardInterrupt):
            steps.run(plan(stop), open_coordinator(), timeout=60)
        assert steps.run(plan(lambda _: ran.append("two")), open_coordinator(), timeout=60) is steps.Outcome.RAN
        assert ran == ["one", "two", "three"]
        assert settled == ["in progress"]

    def test_a_verified_result_that_is_missing_is_a_failure(self, coordinator: Coordinator) -> None:
        """A command that ended well is not believed where the truth can be looked up."""
        step = steps.Step("create", lambda _: None, verify=lambda: "the table is not there")
        plan = steps.Plan("site", "r1", [step], steps.Budget(failures=1))
        with pytest.raises(StepFailed, match="the table is not there"):
            steps.run(plan, coordinator, timeout=10)

    def test_crashes_spend_a_budget_of_their_own(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """A step that always takes its process with it is given up, with its last lines known."""

        def die(work: steps.StepContext) -> None:
            work.run(["sh", "-c", "echo about to die; sleep 0.05"])
            raise KeyboardInterrupt

        plan = steps.Plan("site", "r1", [steps.Step("deadly", die)], steps.Budget(crashes=3))
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                steps.run(plan, open_coordinator(), timeout=60)
        with pytest.raises(StepFailed, match="about to die") as spent:
            steps.run(plan, open_coordinator(), timeout=60)
        assert spent.value.record is not None
        assert spent.value.record.crashes == 3

    def test_an_interrupted_step_counts_against_nothing(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """SIGTERM in the middle of a step: stopped, recorded, handed on at once."""
        first = open_coordinator()

        def slow(work: steps.StepContext) -> None:
            threading.Timer(0.3, first.interrupt, [signal.SIGTERM]).start()
            work.run(["sleep", "600"])

        plan = steps.Plan("site", "r1", [steps.Step("slow", slow)])
        with pytest.raises(Interrupted):
            steps.run(plan, first, timeout=60)
        record = open_coordinator().markers("site").view().find("slow", "r1")
        assert record is not None
        assert (record.state, record.failures, record.crashes) == (MarkerState.INTERRUPTED, 0, 0)
        # Given back, not left to expire.
        assert open_coordinator().backend.holder("site") is None
        quick = steps.Plan("site", "r1", [steps.Step("slow", lambda _: None)])
        assert steps.run(quick, open_coordinator(), timeout=60) is steps.Outcome.RAN

    def test_a_lost_lease_stops_the_step_and_writes_nothing(self, open_coordinator: Callable[[], Coordinator]) -> None:
        """The member campaigns again and finishes the work itself, under a greater token."""
        coordinator, operator = open_coordinator(), open_coordinator()
        tokens: list[int] = []

        def work(context: steps.StepContext) -> None:
            tokens.append(context.lease.token)
            if len(tokens) == 1:
                operator.backend.break_lease("site")
                context.run(["sleep", "600"])

        plan = steps.Plan("site", "r1", [steps.Step("once-lost", work)])
        assert steps.run(plan, coordinator, timeout=60) is steps.Outcome.RAN
        assert len(tokens) == 2
        assert tokens[1] > tokens[0]
        record = operator.markers("site").view().find("once-lost", "r1")
        assert record is not None
        assert (record.attempts, record.crashes, record.failures) == (2, 1, 0)

    def test_a_deposed_leader_can_record_nothing(self, coordinator: Coordinator, other: Coordinator) -> None:
        """After a newer claim the old markers object is refused."""
        old = coordinator.lease("site").acquire()
        markers = coordinator.markers("site")
        markers.claim(old, coordinator.backend.store_id)
        record = markers.begin("migrate", "r1")
        old.release()
        new = other.lease("site").acquire()
        other.markers("site").claim(new, other.backend.store_id)
        with pytest.raises(StaleToken):
            markers.done(record)

    def test_waiting_for_others_has_a_deadline(self, coordinator: Coordinator, other: Coordinator) -> None:
        """A leader that takes too long is not waited for for ever."""
        plan = steps.Plan("site", "r1", [steps.Step("never", lambda _: None)])
        with coordinator.lease("site"), pytest.raises(WaitTimeout):
            steps.run(plan, other, timeout=0.3)

    def test_a_record_by_hand_is_taken_over_only_when_stale(self, coordinator: Coordinator) -> None:
        """A marker without a token is respected until it is older than the plan allows."""
        lease = coordinator.lease("site").acquire()
        markers = coordinator.markers("site")
        markers.claim(lease, coordinator.backend.store_id)
        record = markers.begin("migrate", "r1")
        import msgspec

        by_hand = msgspec.structs.replace(record, token=0, started=time.time() - 100)
        coordinator.marker_backend.put_marker("site", by_hand, lease.token)
        lease.release()
        step = steps.Step("migrate", lambda _: None)
        with pytest.raises(WaitTimeout):
            steps.run(steps.Plan("site", "r1", [step], stale_after=1000), coordinator, timeout=0.5)
        taken = steps.run(steps.Plan("site", "r1", [step], stale_after=50), coordinator, timeout=10)
        assert taken is steps.Outcome.RAN

    def test_many_leases_are_renewed_together(self, coordinator: Coordinator) -> None:
        """A hundred leases outlive their ttl with one keeper."""
        leases = [coordinator.lease(f"many/{number}", ttl=self.short_ttl).acquire() for number in range(100)]
        eventually(lambda: all(lease.due > leases[-1].deadline - self.short_ttl for lease in leases), what="renewal")
        time.sleep(self.short_ttl)
        assert all(lease.held for lease in leases)
        for lease in leases:
            assert lease.release()

    def test_an_unfinished_attempt_at_another_revision_is_settled_first(
        self, open_coordinator: Callable[[], Coordinator]
    ) -> None:
        """It acts on the same scope, whatever its revision."""
        settled: list[str] = []

        def die(_: steps.StepContext) -> None:
            raise KeyboardInterrupt

        def plan(revision: str, action: Callable[[steps.StepContext], object]) -> steps.Plan:
            step = steps.Step("migrate", action, settled=lambda _, record: settled.append(record.revision))
            return steps.Plan("site", revision, [step])

        with pytest.raises(KeyboardInterrupt):
            steps.run(plan("r1", die), open_coordinator(), timeout=60)
        assert steps.run(plan("r2", lambda _: None), open_coordinator(), timeout=60) is steps.Outcome.RAN
        assert settled == ["r1"]

    def test_a_failure_that_follows_from_a_loss_is_not_recorded(self, coordinator: Coordinator) -> None:
        """The action raises because its lease is gone: that spends no budget."""
        tries: list[int] = []

        def work(context: steps.StepContext) -> None:
            tries.append(1)
            if len(tries) == 1:
                coordinator.backend.break_lease("site")
                eventually(lambda: not context.lease.held, what="the loss")
                message = "connection reset"
                raise RuntimeError(message)

        plan = steps.Plan("site", "r1", [steps.Step("once", work)], steps.Budget(failures=1))
        assert steps.run(plan, coordinator, timeout=60) is steps.Outcome.RAN
        assert len(tries) == 2
