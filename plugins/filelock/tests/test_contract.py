"""The ``file://`` store is held to the contracts of the port, on a real folder and the real clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.testing import OpenBackend, StoreContract, opener, overrides
from coordinate.types import Granted, Held
from coordinate_filelock.backend import FileBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TestFile(StoreContract):
    """All port contracts."""

    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> Iterator[OpenBackend]:
        """Clients of one fresh folder."""
        with opener(FileBackend, f"file://{tmp_path}/store") as open_backend:
            yield open_backend

    @overrides("inotify tells every waiter of a release; the kernel's lock then lets in one of them")
    def test_a_release_wakes_one_waiter_and_no_herd(self, open_backend: OpenBackend) -> None:
        """Woken together, one of them is granted and the others are told who it is."""
        backend, waiters = open_backend(), [open_backend() for _ in range(3)]
        owner = mint()
        answer = backend.acquire("herd", owner, 30)
        assert isinstance(answer, Granted)
        assert all(isinstance(each.acquire("herd", mint(), 30), Held) for each in waiters)
        backend.release(answer.grant)
        answers = sorted(type(each.acquire("herd", mint(), 30)).__name__ for each in waiters)
        assert answers == ["Granted", "Held", "Held"]
