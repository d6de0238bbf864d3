"""One server and one ensemble for each module; a chroot of its own for each test."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Under pytest's importlib mode the folder of a test is not on the path; the name is unlike any other's.
sys.path.insert(0, str(Path(__file__).parent / "support"))

from zookeeper_ensemble import Ensemble, ensemble_of_three, standalone

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHROOTS = itertools.count()


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    """Return a server that nobody harms."""
    with standalone(tmp_path_factory.mktemp("zookeeper")) as found:
        yield found


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    """Return three servers; a test that harms them mends them."""
    with ensemble_of_three(tmp_path_factory.mktemp("three")) as found:
        yield found


@pytest.fixture
def chroot() -> str:
    """Return a node that nobody else uses."""
    return f"/deep/{next(_CHROOTS)}"
