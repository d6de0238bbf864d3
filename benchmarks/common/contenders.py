"""Contenders for a name: the library under test, the store's bare commands, other libraries."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers: Iterator[int] = itertools.count()


def fresh_name(what: str) -> str:
    """Return a name that nothing on the server knows yet."""
    return f"{what}-{os.getpid()}-{next(_numbers)}"


class Way(ABC):
    """One contender for a name: takes a server's port, a name and a ttl in seconds; acquires and releases.

    Libraries are imported where they are used: one that is missing costs its row only.
    """

    label: ClassVar[str]
    waits: ClassVar[str] = ""
    """How it waits; empty where it cannot."""
    starts_empty: ClassVar[bool] = False
    """The first holder ever has nothing to acquire: it holds by not having released yet."""

    def __init__(self, port: int, name: str, ttl: float) -> None:
        self.port = port
        self.name = name
        self.ttl = ttl

    @abstractmethod
    def acquire(self) -> None:
        """Return with the lock."""

    @abstractmethod
    def release(self) -> None:
        """Give it back."""


class Contenders:
    """Who takes part in a workload.

    Args:
        ours: the library under test: an error of it is an error of the benchmark.
        limit: what the store can do at best; ratios are to it.
        others: each costs its row only when it fails.
    """

    def __init__(self, ours: type[Way], limit: type[Way], others: tuple[type[Way], ...] = ()) -> None:
        self.ours = ours
        self.limit = limit
        self.others = others

    @property
    def all(self) -> tuple[type[Way], ...]:
        """Return all, ours first."""
        return (self.ours, self.limit, *self.others)
