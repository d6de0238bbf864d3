"""What all contracts share: two clients of a store, and a lock on the tests that a subclass inherits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.backend import Backend
    from coordinate.testing.kit import OpenBackend

_REASON = "overriding_reason"


def overrides(reason: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Mark a test that replaces one of a contract, and say why the store cannot be held to the original.

    Example:
        >>> @overrides("the server counts ttls in whole minutes; tested with one below")
        ... def test_a_holder_that_does_not_renew_loses_the_lease_where_expiry_is_declared(self): ...
    """
    if not isinstance(reason, str) or not reason.strip():
        message = "overrides() needs the reason why the store cannot be held to the contract's own test"
        raise TypeError(message)

    def mark(function: Callable[..., object]) -> Callable[..., object]:
        setattr(function, _REASON, reason)
        return function

    return mark


class Contract:
    """A class of tests that a subclass inherits as they are.

    ``class MyContract(Contract, sealed=True)`` makes the tests of a class binding: a subclass, or a mixin before it,
    that replaces one of them without `overrides` cannot be defined, so that collecting it fails with the reason.
    """

    _bound: ClassVar[dict[str, object]] = {}

    def __init_subclass__(cls, *, sealed: bool = False, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        bound: dict[str, object] = {}
        for base in reversed(cls.__mro__[1:]):
            bound |= vars(base).get("_bound", {})
        for name, original in bound.items():
            present = getattr(cls, name, None)
            if present is not original and not getattr(present, _REASON, ""):
                message = (
                    f"{cls.__name__}.{name} replaces a test of the contract: "
                    "leave it as it is, or say why with @coordinate.testing.overrides(reason)"
                )
                raise TypeError(message)
        own = {name: value for name, value in vars(cls).items() if name.startswith("test") and callable(value)}
        cls._bound = own if sealed else {}


class ClientContract(Contract):
    """Subclass with a fixture ``open_backend``; see `coordinate.testing`."""

    patience = 30.0
    """Seconds within which whatever has to happen must have happened; a busy machine takes its time."""

    @pytest.fixture
    def backend(self, open_backend: OpenBackend) -> Backend:
        """One client of the store."""
        return open_backend()

    @pytest.fixture
    def other(self, open_backend: OpenBackend) -> Backend:
        """Another client of the same store."""
        return open_backend()

    def let_time_pass(self, seconds: float) -> None:
        """Let time pass for the store; one on a fake clock advances it instead."""
        time.sleep(seconds)
