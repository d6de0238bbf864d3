"""The ``etcd://`` store is held to the contracts of the port, on one real member and on three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.testing import LeasePortContract, MarkerPortContract, OpenBackend, WatchPortContract, opener
from coordinate_etcd.backend import EtcdBackend
from tests.stacks.etcd import Etcd, etcd

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestOneMember(LeasePortContract, MarkerPortContract, WatchPortContract):
    """All port contracts."""

    @pytest.fixture
    def open_backend(self, emptied: Etcd) -> Iterator[OpenBackend]:
        """Clients of the shared member."""
        with opener(EtcdBackend, emptied.url) as open_backend:
            yield open_backend


class TestThreeMembers(LeasePortContract, MarkerPortContract, WatchPortContract):
    """The same on an ensemble."""

    @pytest.fixture(scope="class")
    def ensemble(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
        """Three members for all tests here."""
        with etcd(tmp_path_factory.mktemp("etcd3"), 3) as ensemble:
            yield ensemble

    @pytest.fixture
    def open_backend(self, ensemble: Etcd) -> Iterator[OpenBackend]:
        """Clients of all members."""
        ensemble.control("del", "", "--prefix")
        with opener(EtcdBackend, ensemble.url) as open_backend:
            yield open_backend
