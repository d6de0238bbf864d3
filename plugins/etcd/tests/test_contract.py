"""The ``etcd://`` store is held to the contracts of the port, on one real member and on three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.testing import OpenBackend, StoreContract, UnavailablePortContract, opener
from coordinate_etcd.backend import EtcdBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stacks.etcd import Etcd

    from coordinate.backend import Backend


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


class TestUnreachable(UnavailablePortContract):
    """Nobody listens there: our errors, no wrong fact, no password."""

    @pytest.fixture
    def unreachable(self) -> Iterator[Backend]:
        """One client that nothing answers."""
        with opener(EtcdBackend, "etcd://root:canary@127.0.0.1:1", timeout=2.0) as open_backend:
            yield open_backend()
