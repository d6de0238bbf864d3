"""A test of a contract is not replaced in silence."""

from __future__ import annotations

import inspect

import pytest

from coordinate import testing
from coordinate.testing import Contract, CoordinatorContract, LeasePortContract, StoreContract, overrides


def test_a_test_without_reason_cannot_be_replaced() -> None:
    """Defining the class fails, so pytest cannot collect it; the message names the test and the way out."""
    with pytest.raises(TypeError, match=r"Tests\.test_release_is_idempotent .*overrides\(reason\)"):

        class Tests(LeasePortContract):
            def test_release_is_idempotent(self) -> None:  # type: ignore[override]
                """Do nothing."""


@pytest.mark.parametrize("replacement", [None, 0, lambda _: None])
def test_neither_removing_nor_mixing_in_goes_unnoticed(replacement: object) -> None:
    """Whatever stands where the test was, and wherever it comes from."""
    mixin = type("Mixin", (), {"test_release_is_idempotent": replacement})
    with pytest.raises(TypeError, match="test_release_is_idempotent"):
        type("Tests", (mixin, StoreContract), {})
    with pytest.raises(TypeError, match="test_work_runs_once"):
        type("Tests", (CoordinatorContract,), {"test_work_runs_once_over_the_fleet": replacement})


def test_a_stated_reason_is_enough_for_all_subclasses() -> None:
    """It is kept on the test, for people and reports."""

    class Tests(LeasePortContract):
        @overrides("this store has its own idea of it")
        def test_release_is_idempotent(self) -> None:
            """Do something else."""

    assert "own idea" in vars(type("Finer", (Tests,), {}).test_release_is_idempotent)["overriding_reason"]


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_a_reason_says_something(reason: str) -> None:
    """An empty one is none."""
    with pytest.raises(TypeError, match="reason"):
        overrides(reason)


def test_tests_of_ones_own_are_free() -> None:
    """What is no contract's may be added and replaced."""

    class Tests(LeasePortContract):
        def test_of_mine(self) -> None:
            """Do one thing."""

    type("Finer", (Tests,), {"test_of_mine": None})


def test_the_kit_is_as_large_as_it_says() -> None:
    """More than 80 tests, each counted once, each with a sentence that says what it shows."""
    kinds = [kind for kind in vars(testing).values() if inspect.isclass(kind) and issubclass(kind, Contract)]
    tests = {getattr(kind, name) for kind in kinds for name in dir(kind) if name.startswith("test_")}
    assert len(tests) >= 100
    assert all(test.__doc__ for test in tests)
