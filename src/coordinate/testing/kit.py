"""What the contracts and a plugin author's own tests need: a fake clock, an opener of clients, patient asking."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

import msgspec
import pytest

from coordinate._clock import SYSTEM, Clock
from coordinate.backend import Backend, StoreSettings
from coordinate.types import MarkerRecord, MarkerState
from coordinate.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OpenBackend(Protocol):
    """Opens one more client of the store under test; each stands for a process of its own."""

    def __call__(self) -> Backend:
        """Return a new backend on the same store and namespace."""


class FakeClock:
    """A clock that only moves when told to. Wall and boot time move together.

    Example:
        >>> clock = FakeClock()
        >>> clock.advance(2.5)
        >>> clock.now()
        1002.5
    """

    def __init__(self) -> None:
        self._now = 1000.0

    def now(self) -> float:
        """Return the fake seconds since boot."""
        return self._now

    def wall(self) -> float:
        """Return the fake seconds since the epoch."""
        return 1_700_000_000.0 + self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def record(
    step: str = "migrate", state: MarkerState = MarkerState.DONE, *, token: int, **fields: object
) -> MarkerRecord:
    """Return a record of revision ``r1`` with some fields changed."""
    base = MarkerRecord(step, "r1", state, token, started=1.5, finished=2.5, attempts=1)
    return msgspec.structs.replace(base, **fields)


@contextlib.contextmanager
def opener(kind: type[Backend], url: str, *, clock: Clock = SYSTEM, timeout: float = 15.0) -> Iterator[OpenBackend]:
    """Yield a function that opens clients of one store, and close them all in the end."""
    opened: list[Backend] = []
    settings = StoreSettings(namespace="contract", timeout=timeout, clock=clock)

    def open_backend() -> Backend:
        opened.append(kind.open(parse(url), settings))
        return opened[-1]

    yield open_backend
    for backend in opened:
        backend.close()


def eventually(condition: Callable[[], bool], *, within: float = 30.0, what: str = "the condition") -> None:
    """Ask until true, at most ``within`` seconds; fail naming ``what`` otherwise."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {within} s")
        time.sleep(0.005)
