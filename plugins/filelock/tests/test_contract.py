"""The ``file://`` store is held to the contracts of the port, on a real folder and the real clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.testing import LeasePortContract, MarkerPortContract, OpenBackend, WatchPortContract, opener
from coordinate_filelock.backend import FileBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TestFile(LeasePortContract, MarkerPortContract, WatchPortContract):
    """All port contracts."""

    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> Iterator[OpenBackend]:
        """Clients of one fresh folder."""
        with opener(FileBackend, f"file://{tmp_path}/store") as open_backend:
            yield open_backend
