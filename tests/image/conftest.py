"""Volumes for containers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.image.replicas import Volume, volume

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def shared() -> Iterator[Volume]:
    """Return an empty volume and its servers; its path is short, for sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="image-") as folder, volume(Path(folder)) as made:
        yield made
