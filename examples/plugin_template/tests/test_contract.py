"""The store is held to the contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from coordinate_sqlite.backend import SqliteBackend

from coordinate.testing import OpenBackend, StoreContract, UnavailablePortContract, opener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coordinate.backend import Backend


class TestSqlite(StoreContract):
    """All of the port."""

    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> Iterator[OpenBackend]:
        """Clients of one fresh file."""
        with opener(SqliteBackend, f"sqlite://{tmp_path}/store.db") as open_backend:
            yield open_backend


class TestUnreachable(UnavailablePortContract):
    """A folder that is not there."""

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Iterator[Backend]:
        """One client."""
        with opener(SqliteBackend, f"sqlite://{tmp_path}/no-such-folder/store.db") as open_backend:
            yield open_backend()
