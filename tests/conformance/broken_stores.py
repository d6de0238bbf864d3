"""The contract on deliberately broken stores. Not collected by itself: `test_kit_catches` runs it.

Each class of `broken` is the reference store with one promise broken, and named beside it is the test that has to fail.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from coordinate.testing import FakeClock, OpenBackend, StoreContract, UnavailablePortContract, opener
from tests.conformance.broken import declarations, leases, markers, outages, watches
from tests.conformance.broken.outages import Cut
from tests.conformance.broken.sound import Sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate.backend import Backend
    from coordinate.backends.memory import MemoryBackend

_NUMBERS = itertools.count()
CAUGHT_BY = leases.CAUGHT_BY | markers.CAUGHT_BY | watches.CAUGHT_BY | declarations.CAUGHT_BY
OUTAGE_CAUGHT_BY = outages.CAUGHT_BY


class Store(StoreContract):
    """The contract of the port on a store of `kind`."""

    patience = 0.5
    quick = 2.0
    kind: type[MemoryBackend] = Sound

    @pytest.fixture
    def open_backend(self) -> Iterator[OpenBackend]:
        """Clients of one fresh store."""
        self.clock = FakeClock()
        with opener(self.kind, f"memory://broken-{next(_NUMBERS)}", clock=self.clock) as open_backend:
            yield open_backend

    def let_expire(self, backend: Backend, name: str) -> None:
        """Advance the clock instead of waiting."""
        del backend, name
        self.clock.advance(self.short_ttl)

    def let_time_pass(self, seconds: float) -> None:
        """Advance the clock instead of waiting."""
        self.clock.advance(seconds)


class Unreachable(UnavailablePortContract):
    """The contract of outages on a store of `kind`."""

    kind: type[Cut] = Cut

    @pytest.fixture
    def unreachable(self) -> Iterator[Backend]:
        """One client."""
        with opener(self.kind, f"memory://cut-{next(_NUMBERS)}") as open_backend:
            yield open_backend()


class TestSound(Store):
    """The control: everything holds."""


class TestCut(Unreachable):
    """The control of outages."""


for _test, _kinds in ((Store, CAUGHT_BY), (Unreachable, OUTAGE_CAUGHT_BY)):
    for _kind in _kinds:
        _name = f"Test{_kind.__name__}"
        globals()[_name] = type(_name, (_test,), {"kind": _kind, "__module__": __name__})
