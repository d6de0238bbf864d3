"""The reference store is held to its own contract, on a fake clock."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.backends.memory import MemoryBackend
from coordinate.testing import (
    CoordinatorContract,
    FakeClock,
    OpenBackend,
    StoreContract,
    opener,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.backend import Backend
    from coordinate.coordinator import Coordinator

_NUMBERS = itertools.count()


class TestMemory(StoreContract):
    """All port contracts."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return time in our hands."""
        return FakeClock()

    @pytest.fixture
    def open_backend(self, clock: FakeClock) -> Iterator[OpenBackend]:
        """Clients of one fresh store."""
        with opener(MemoryBackend, f"memory://contract-{next(_NUMBERS)}", clock=clock) as open_backend:
            self._clock = clock
            yield open_backend

    def let_expire(self, backend: Backend, name: str) -> None:
        """Advance the clock instead of waiting."""
        del backend, name
        self._clock.advance(self.short_ttl)

    def let_time_pass(self, seconds: float) -> None:
        """Advance the clock instead of waiting."""
        self._clock.advance(seconds)


class TestMemoryCoordinator(CoordinatorContract):
    """The core on the reference store, in real time."""

    @pytest.fixture
    def open_coordinator(self) -> Iterator[Callable[[], Coordinator]]:
        """Members of one fresh fleet."""
        url, opened = f"memory://fleet-{next(_NUMBERS)}", []

        def open_coordinator() -> Coordinator:
            opened.append(connect(url, ttl=self.ttl))
            return opened[-1]

        yield open_coordinator
        for coordinator in opened:
            coordinator.close()
