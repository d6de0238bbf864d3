"""Ensembles for tests: one of each size for a module, whose keys each test starts without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.stacks.etcd import PATIENCE, etcd

from coordinate.backend import StoreSettings
from coordinate.url import parse
from coordinate_etcd.backend import EtcdBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.stacks.etcd import Etcd


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One member, for tests that leave it running."""
    with etcd(tmp_path_factory.mktemp("etcd")) as ensemble:
        yield ensemble


@pytest.fixture
def emptied(single: Etcd) -> Etcd:
    """Return the shared member without any key."""
    single.control("del", "", "--prefix")
    return single


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """Three members, for tests that leave them running."""
    with etcd(tmp_path_factory.mktemp("etcd3"), 3) as ensemble:
        yield ensemble


@pytest.fixture
def shared_three(trio: Etcd) -> Etcd:
    """Return the shared members without any key."""
    trio.control("del", "", "--prefix")
    return trio


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Etcd]:
    """Three members of this test's own."""
    with etcd(tmp_path, 3) as ensemble:
        yield ensemble


@pytest.fixture
def opened() -> Iterator[Callable[..., EtcdBackend]]:
    """Open clients; close them in the end."""
    clients: list[EtcdBackend] = []

    def open_client(url: str, timeout: float = PATIENCE) -> EtcdBackend:
        clients.append(EtcdBackend.open(parse(url), StoreSettings("t", timeout)))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()
