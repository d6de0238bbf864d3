"""The ``zookeeper://`` store is held to the contracts of the port, on one server and on three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.testing import OpenBackend, StoreContract, UnavailablePortContract, opener, overrides
from coordinate.types import Gone, Grant, LossReason
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zookeeper_ensemble import Ensemble

    from coordinate.backend import Backend


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


class TestUnreachable(UnavailablePortContract):
    """Nobody listens there: our errors, no wrong fact, no password."""

    @pytest.fixture
    def unreachable(self) -> Iterator[Backend]:
        """One client that nothing answers."""
        with opener(ZooKeeperBackend, "zookeeper://root:canary@127.0.0.1:1/there", timeout=2.0) as open_backend:
            yield open_backend()

    @overrides("a lease is bound to the session that got it: of a client without one, no grant can be")
    def test_renewals_without_an_answer_are_unknown(self, unreachable: Backend) -> None:
        """What this client was never granted it does not hold; in an outage a lease that it had is unknown.

        The latter: ``test_faults``, where a server goes away under a session.
        """
        grants = [Grant(name, 7, mint().nonce, 30) for name in ("one", "two")]
        assert unreachable.renew(grants) == [Gone(LossReason.EXPIRED)] * 2
