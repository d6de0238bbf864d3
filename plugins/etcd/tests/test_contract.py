"""The ``etcd://`` store is held to the contracts of the port, on one real member and on three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.testing import OpenBackend, StoreContract, opener
from coordinate_etcd.backend import EtcdBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stacks.etcd import Etcd


class TestOneMember(StoreContract):
    """All port contracts."""

    @pytest.fixture
    def open_backend(self, emptied: Etcd) -> Iterator[OpenBackend]:
        """Clients of the shared member."""
        with opener(EtcdBackend, emptied.url) as open_backend:
            yield open_backend


class TestThreeMembers(StoreContract):
    """The same on an ensemble."""

    @pytest.fixture
    def open_backend(self, shared_three: Etcd) -> Iterator[OpenBackend]:
        """Clients of all members."""
        with opener(EtcdBackend, shared_three.url) as open_backend:
            yield open_backend
