"""Leases on a fake clock: deadlines, late answers, limits. No thread, no server, no waiting."""

from __future__ import annotations

import itertools
import math
import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._alarm import Alarm
from coordinate._clock import SYSTEM
from coordinate._holding import Limits, Shared
from coordinate._keeper import PAUSE_AFTER_ERROR, Keeper
from coordinate._waiting import LONGEST_NAP, Hub
from coordinate.backend import Backend, StoreSettings
from coordinate.backends.memory import MemoryBackend
from coordinate.config import Timing
from coordinate.errors import ConfigError, LeaseLost
from coordinate.lease import Lease
from coordinate.testing import FakeClock, eventually
from coordinate.types import Gone, Granted, LossReason, Topic, Unknown
from coordinate.url import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import AcquireAnswer, Grant, Owner, RenewAnswer

_NUMBERS = itertools.count()
TIMING = Timing.of(30)


class World:
    """A clock, a store and a keeper that only ticks when told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        settings = StoreSettings(clock=self.clock)
        self.backend: Backend = MemoryBackend.open(parse(f"memory://unit-{next(_NUMBERS)}"), settings)
        self.keeper = Keeper(self.backend, self.clock, threaded=False)
        self.shared = Shared(self.backend, self.clock, Hub(self.clock), self.keeper, "unit")

    def lease(self, timing: Timing = TIMING, limits: Limits | None = None) -> Lease:
        """Return an acquired lease."""
        lease = Lease(self.shared, "job", timing, limits or Limits())
        assert lease.try_acquire()
        return lease

    def pass_time(self, seconds: float, tick: float = 1.0) -> None:
        """Let time pass with the keeper at work."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.clock.advance(min(tick, end - self.clock.now()))
            self.keeper.tick()


@pytest.fixture
def world() -> World:
    """Return a fresh world."""
    return World()


def answer_with(world: World, monkeypatch: pytest.MonkeyPatch, answer: RenewAnswer, delay: float = 0.0) -> None:
    """Make the store answer renewals like this, after a delay."""

    def renew(grants: Sequence[Grant]) -> list[RenewAnswer]:
        world.clock.advance(delay)
        return [answer for _ in grants]

    monkeypatch.setattr(world.backend, "renew", renew)


def test_a_renewed_lease_is_held_for_hours(world: World) -> None:
    """The keeper alone keeps it."""
    lease = world.lease()
    world.pass_time(7200)
    lease.check()


def test_an_answer_that_was_asked_for_earlier_counts_from_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may ask ahead of us for what we are about to ask; the lease does not last longer by that."""
    real = world.backend.acquire

    def ahead(name: str, owner: Owner, ttl: float, **_: object) -> AcquireAnswer:
        answer = real(name, owner, ttl)
        assert isinstance(answer, Granted)
        return Granted(answer.grant, age=2.0)

    monkeypatch.setattr(world.backend, "acquire", ahead)
    lease = world.lease()
    world.clock.advance(TIMING.renew_deadline - 2.01)
    lease.check()
    world.clock.advance(0.02)
    with pytest.raises(LeaseLost):
        lease.check()


def test_without_the_keeper_the_lease_ends_at_the_renew_deadline(world: World) -> None:
    """A starved keeper changes nothing: check looks at the clock itself."""
    lease = world.lease()
    world.clock.advance(TIMING.renew_deadline - 0.01)
    lease.check()
    world.clock.advance(0.02)
    with pytest.raises(LeaseLost):
        lease.check()


def test_the_holder_stops_before_the_store_grants_it_to_others(world: World) -> None:
    """Between the last good check and the next grant lies time to stop the work."""
    lease = world.lease()
    while lease.held:
        world.clock.advance(0.1)
    assert world.backend.holder("job") is not None
    assert lease.deadline > world.clock.now() + 5


def test_unknown_answers_are_survived_until_the_renew_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is not a loss; time is."""
    lease = world.lease()
    answer_with(world, monkeypatch, Unknown("unreachable"))
    world.pass_time(TIMING.renew_deadline - 1)
    lease.check()
    world.pass_time(2)
    assert lease.lost is not None
    assert lease.lost.reason is LossReason.EXPIRED


def test_a_confirmed_loss_is_known_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the store's."""
    lease = world.lease()
    answer_with(world, monkeypatch, Gone(LossReason.TAKEN))
    world.pass_time(TIMING.retry_period + 1)
    assert lease.lost is not None
    assert lease.lost.reason is LossReason.TAKEN


def test_the_deadline_counts_from_before_the_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow answer does not lengthen the lease."""
    lease = world.lease()
    real = world.backend.renew

    def slow(grants: Sequence[Grant]) -> list[RenewAnswer]:
        answers = real(grants)
        world.clock.advance(4)
        return answers

    monkeypatch.setattr(world.backend, "renew", slow)
    world.clock.advance(TIMING.retry_period)
    sent = world.clock.now()
    world.keeper.tick()
    assert lease.deadline < sent + TIMING.ttl


def test_an_answer_after_the_renew_deadline_does_not_bring_it_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work has been told to stop; a late yes changes nothing."""
    lease = world.lease()
    real = world.backend.renew

    def late(grants: Sequence[Grant]) -> list[RenewAnswer]:
        answers = real(grants)
        world.clock.advance(TIMING.renew_deadline)
        return answers

    monkeypatch.setattr(world.backend, "renew", late)
    world.clock.advance(TIMING.retry_period)
    world.keeper.tick()
    assert lease.lost is not None
    assert not lease.held


def test_a_suspended_process_has_lost_its_lease(world: World) -> None:
    """An hour of suspend counts; the first look afterwards says so."""
    lease = world.lease()
    world.clock.advance(3600)
    assert not lease.held
    world.keeper.tick()
    assert lease.lost is not None


def test_max_hold_ends_a_healthy_lease(world: World) -> None:
    """However well it is renewed."""
    lease = world.lease(limits=Limits(max_hold=100))
    world.pass_time(99)
    lease.check()
    world.pass_time(2)
    assert lease.lost is not None
    assert lease.lost.reason is LossReason.MAX_HOLD


def test_a_holder_without_progress_loses_its_lease(world: World) -> None:
    """Touching keeps it."""
    lease = world.lease(limits=Limits(progress=60))
    world.pass_time(59)
    lease.touch()
    world.pass_time(59)
    lease.check()
    world.pass_time(2)
    assert lease.lost is not None
    assert lease.lost.reason is LossReason.STALLED


def test_callbacks_learn_of_a_loss_that_has_happened(world: World) -> None:
    """Registering late is not too late."""
    seen: list[LossReason] = []
    lease = world.lease()
    lease.abandon()
    lease.on_lost(lambda loss: seen.append(loss.reason))
    for thread in __import__("threading").enumerate():
        if thread.name == "coordinate-lost":
            thread.join()
    assert seen == [LossReason.CLOSED]


def test_a_fork_does_not_inherit_the_lease(world: World) -> None:
    """The child's copy fails its checks."""
    lease = world.lease()
    pid = os.fork()
    if pid == 0:
        os._exit(1 if lease.held else 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert lease.held


def test_acquiring_twice_is_refused(world: World) -> None:
    """There is no implicit re-entrancy."""
    lease = world.lease()
    with pytest.raises(ConfigError):
        lease.try_acquire()


@pytest.mark.parametrize(
    ("ttl", "deadline", "period", "timeout"),
    [(30, 30, 5, 1), (30, 20, 20, 1), (30, 20, 5, 10), (0, None, None, None), (math.inf, 1, 1, 1), (30, -1, 1, 1)],
)
def test_impossible_timings_are_refused(
    ttl: float, deadline: float | None, period: float | None, timeout: float | None
) -> None:
    """It must be: ttl > renew_deadline > retry_period, and a request never eats the time to stop the work."""
    with pytest.raises(ConfigError):
        Timing.of(ttl, deadline, period, timeout)


def test_an_answer_for_an_earlier_grant_does_not_end_a_new_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back and acquired anew while the renewal was under way."""
    lease = world.lease()

    def renew(grants: Sequence[Grant]) -> list[RenewAnswer]:
        lease.release()
        assert lease.try_acquire()
        return [Gone(LossReason.TAKEN) for _ in grants]

    monkeypatch.setattr(world.backend, "renew", renew)
    world.clock.advance(TIMING.retry_period)
    world.keeper.tick()
    lease.check()


def test_a_closed_keeper_lets_its_leases_lapse(world: World) -> None:
    """Nothing is renewed for a coordinator that is closed."""
    lease = world.lease()
    world.keeper.close()
    assert lease.lost is not None
    assert lease.lost.reason is LossReason.CLOSED


def test_entering_a_lease_that_was_lost_in_between_raises(world: World) -> None:
    """It is not silently acquired a second time."""
    lease = world.lease()
    world.clock.advance(3600)
    with pytest.raises(LeaseLost), lease:
        pytest.fail("the body must not run")


def test_a_callback_that_raises_stops_neither_the_others_nor_other_leases(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is hung on a renewal, leases are renewed."""
    first, second = world.lease(), Lease(world.shared, "other", TIMING)
    assert second.try_acquire()
    told: list[float] = []

    def broken(_: float) -> None:
        message = "no room"
        raise OSError(message)

    for lease in (first, second):
        lease.on_renewed(broken)
        lease.on_renewed(told.append)
    before = first.deadline, second.deadline
    world.clock.advance(TIMING.retry_period)
    world.keeper.tick()
    assert first.deadline > before[0]
    assert second.deadline > before[1]
    assert sorted(told) == sorted([first.deadline, second.deadline])
    assert "no room" in caplog.text


def test_after_an_error_the_keeper_goes_on_but_not_in_a_busy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that breaks the rule never to raise costs one attempt in a while, not a processor."""
    asked: list[float] = []
    with connect("memory://broken-rule", ttl=3) as coordinator:

        def renew(_: Sequence[Grant]) -> list[RenewAnswer]:
            asked.append(coordinator.clock.now())
            raise ZeroDivisionError

        monkeypatch.setattr(coordinator.backend, "renew", renew)
        coordinator.lease("job").acquire()
        eventually(lambda: len(asked) >= 5, what="renewal")
        seen = asked[:5]  # what closing wakes the keeper for is another matter
    assert all(later - earlier >= 0.9 * PAUSE_AFTER_ERROR for earlier, later in itertools.pairwise(seen))


def test_a_closed_coordinator_says_so() -> None:
    """Whoever waits with it gets an error of ours, and what to do."""
    with connect("memory://closed") as other, connect("memory://closed") as coordinator:
        other.lease("job").acquire()
        coordinator.close()
        with pytest.raises(ConfigError, match="is closed"):
            coordinator.lease("job").acquire(timeout=1)


def test_a_closed_hub_bears_a_late_signal_and_a_second_close() -> None:
    """Its descriptor is gone, a handler that still knows it does no harm."""
    hub = Hub(FakeClock())
    hub.close()
    hub.close()
    hub.ring(15)


def many(world: World, count: int) -> list[Lease]:
    """Return leases that have been renewed together once."""
    leases = [Lease(world.shared, f"many/{number}", TIMING) for number in range(count)]
    for lease in leases:
        assert lease.try_acquire()
        world.clock.advance(0.01)
    world.pass_time(TIMING.retry_period)
    assert len({id(lease.cohort) for lease in leases}) == 1
    return leases


def test_leases_renewed_together_have_one_time_and_are_lost_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad answer is about its own lease only, and its time stands still from then on."""
    leases = many(world, 50)
    taken, silent = leases[7], leases[9]
    answers = {taken.name: Gone(LossReason.TAKEN), silent.name: Unknown("hung")}
    real = world.backend.renew
    monkeypatch.setattr(
        world.backend,
        "renew",
        lambda grants: [answers.get(each.name, good) for each, good in zip(grants, real(grants), strict=True)],
    )
    before = silent.deadline
    world.pass_time(TIMING.retry_period)
    assert taken.lost is not None
    assert taken.lost.reason is LossReason.TAKEN
    stopped = taken.deadline
    silent.check()
    assert silent.deadline == before
    assert all(lease.held and lease.deadline > before for lease in leases if lease not in {taken, silent})
    world.pass_time(TIMING.renew_deadline - TIMING.retry_period)
    assert [lease.name for lease in leases if not lease.held] == [taken.name, silent.name]
    assert taken.deadline == stopped


def test_a_lease_that_leaves_its_fellows_takes_no_more_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back, acquired anew, or abandoned while the others' renewal is under way."""
    back, anew, gone, *others = many(world, 20)
    real = world.backend.renew
    fresh: list[float] = []

    def renew(grants: Sequence[Grant]) -> list[RenewAnswer]:
        answers = real(grants)
        if not fresh:
            back.release()
            anew.release()
            assert anew.try_acquire()
            fresh.append(anew.deadline)
            gone.abandon()
            world.clock.advance(2)
        return answers

    monkeypatch.setattr(world.backend, "renew", renew)
    before = back.deadline
    world.clock.advance(TIMING.retry_period)
    world.keeper.tick()
    assert not back.held
    assert not gone.held
    assert back.deadline == gone.deadline == before
    assert anew.deadline == fresh[0]
    world.pass_time(3600)
    assert all(lease.held for lease in (anew, *others))


def test_the_same_leases_are_the_same_object_to_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it may prepare their request once; as soon as one leaves, it is another."""
    leases = many(world, 5)
    seen: list[Sequence[Grant]] = []
    real = world.backend.renew

    def renew(grants: Sequence[Grant]) -> list[RenewAnswer]:
        seen.append(grants)
        return real(grants)

    monkeypatch.setattr(world.backend, "renew", renew)
    world.pass_time(3 * TIMING.retry_period)
    assert len(seen) >= 2
    assert all(each is seen[0] for each in seen)
    leases[2].release()
    world.pass_time(TIMING.retry_period)
    assert [grant.name for grant in seen[-1]] == [lease.name for lease in leases if lease is not leases[2]]


def test_who_asks_later_is_told_of_the_renewals_of_its_own_lease(world: World) -> None:
    """Also when the lease has fellows by then; theirs are not told."""
    leases = many(world, 3)
    told: list[float] = []
    leases[1].on_renewed(told.append)
    world.pass_time(TIMING.retry_period)
    assert told == [leases[1].deadline]
    world.clock.advance(1)
    leases[0].extend(world.clock.now(), 30)
    assert leases[0].deadline > leases[1].deadline
    world.pass_time(3600)
    assert all(lease.held for lease in leases)


def test_a_long_wait_sleeps_in_one_go_and_ends_on_time() -> None:
    """Nothing wakes it in between; it ends not before its instant, and hardly after."""
    with connect("memory://long-wait") as coordinator:
        clock, hub = coordinator.clock, coordinator.hub
        with hub.wait((coordinator.backend, Topic("markers", "scope"))) as wait:
            hub._pump_once(0.0)  # the bell of the channel that was just opened
            until = clock.now() + LONGEST_NAP + 0.5
            hub._pump_once(until)
            assert 0 <= clock.now() - until < 0.4
            rings = threading.Timer(0.2, hub.ring)
            rings.start()
            began = clock.now()
            hub._pump_once(math.inf)
            assert clock.now() - began < LONGEST_NAP
            rings.join()
            wait.sleep(clock.now())


def test_an_alarm_counts_on_the_clock_that_counts_suspend() -> None:
    """It rings at an instant of CLOCK_BOOTTIME, also one that has passed; set to never, it is silent."""
    one = Alarm()
    try:
        for wait in (0.05, -5.0):
            at = SYSTEM.now() + wait
            assert one.set(at)
            assert select.select([one], [], [], 5)[0]
            assert SYSTEM.now() >= at
        assert one.set(math.inf)
        assert not select.select([one], [], [], 0.05)[0]
    finally:
        one.close()
