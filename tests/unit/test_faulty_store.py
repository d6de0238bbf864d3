"""The faulty store does to each request what it was told to, and the core bears it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.backend import Backend
from coordinate.errors import BackendUnavailable
from coordinate.steps import Outcome
from coordinate.testing import Fault, FaultyBackend, faulty_coordinator
from coordinate.types import Granted, Held, Renewed, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate.coordinator import Coordinator

_NUMBERS = itertools.count()


@pytest.fixture
def pair() -> Iterator[tuple[Coordinator, FaultyBackend]]:
    """Return a coordinator on a fresh store, and that store."""
    coordinator, store = faulty_coordinator(f"memory://faulty-{next(_NUMBERS)}")
    with coordinator:
        yield coordinator, store


@pytest.mark.parametrize(
    ("fault", "held"), [(Fault.DROP, False), (Fault.LOSE, True), (Fault.DELAY, False), (Fault.DUPLICATE, True)]
)
def test_each_fault_leaves_the_store_as_it_says(
    pair: tuple[Coordinator, FaultyBackend], fault: Fault, *, held: bool
) -> None:
    """Dropped and delayed requests have changed nothing yet; lost and doubled ones have."""
    _, store = pair
    store.plan("acquire", fault)
    owner = mint()
    if fault is Fault.DUPLICATE:
        assert isinstance(store.acquire("job", owner, 30), Granted)
    else:
        with pytest.raises(BackendUnavailable, match=f"acquire {fault.value}"):
            store.acquire("job", owner, 30)
    assert (store.inner.holder("job") is not None) is held
    assert store.deliver() == (fault is Fault.DELAY)
    assert (store.inner.holder("job") is not None) is (fault is not Fault.DROP)
    assert store.calls[0] == ("acquire", fault)


def test_renewals_without_answer_are_unknown_and_not_errors(pair: tuple[Coordinator, FaultyBackend]) -> None:
    """As the port has it; the next one works."""
    coordinator, store = pair
    grant = coordinator.lease("job").acquire(1).grant
    store.plan("renew", Fault.LOSE)
    assert [type(store.renew([grant])[0]), type(store.renew([grant])[0])] == [Unknown, Renewed]


def test_a_release_that_arrives_late_ends_nobody_elses_lease(pair: tuple[Coordinator, FaultyBackend]) -> None:
    """The name has gone on to somebody else in between."""
    _, store = pair
    answer = store.acquire("job", mint(), 30)
    assert isinstance(answer, Granted)
    store.plan("release", Fault.DELAY)
    with pytest.raises(BackendUnavailable):
        store.release(answer.grant)
    store.inner.break_lease("job")
    assert isinstance(store.acquire("job", mint(), 30), Granted)
    store.deliver()
    assert isinstance(store.acquire("job", mint(), 30), Held)


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.LOSE, Fault.DUPLICATE])
@pytest.mark.parametrize("operation", ["acquire", "put_marker", "markers", "claim"])
def test_work_runs_once_whatever_happens_to_one_request(
    pair: tuple[Coordinator, FaultyBackend], operation: str, fault: Fault
) -> None:
    """The core asks again, and what was done twice counts once."""
    coordinator, store = pair
    store.plan(operation, fault)
    runs: list[int] = []
    assert coordinator.run_once("migrate", "r1", lambda: runs.append(1)) is Outcome.RAN
    assert runs == [1]
    assert coordinator.run_once("migrate", "r1", lambda: runs.append(2)) is Outcome.ALREADY_DONE


def test_every_operation_of_the_port_can_be_hurt(pair: tuple[Coordinator, FaultyBackend]) -> None:
    """A name that is none is refused: a plan that never happens would prove nothing."""
    _, store = pair
    assert set(vars(FaultyBackend)) >= Backend.__abstractmethods__
    with pytest.raises(ValueError, match="put_markr"):
        store.plan("put_markr", Fault.DROP)
