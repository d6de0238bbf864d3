"""The ``zookeeper://`` store is held to the contracts of the port, on one server and on three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.testing import OpenBackend, StoreContract, opener
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zookeeper_ensemble import Ensemble


class TestOneServer(StoreContract):
    """All port contracts on a standalone server."""

    @pytest.fixture
    def open_backend(self, zookeeper: Ensemble, chroot: str) -> Iterator[OpenBackend]:
        """Clients of one fresh chroot."""
        with opener(ZooKeeperBackend, zookeeper.url(chroot)) as open_backend:
            yield open_backend


class TestThreeServers(StoreContract):
    """All port contracts on an ensemble: each client may be connected to another server."""

    @pytest.fixture
    def open_backend(self, three: Ensemble, chroot: str) -> Iterator[OpenBackend]:
        """Clients of one fresh chroot."""
        with opener(ZooKeeperBackend, three.url(chroot)) as open_backend:
            yield open_backend
