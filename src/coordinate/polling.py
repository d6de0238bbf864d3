"""A waiting channel for stores that cannot tell: it says nothing, and waiters look for themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coordinate.backend import Watch

if TYPE_CHECKING:
    from coordinate.types import Topic


class PollingWatch(Watch):
    """Has nothing to report; each waiter looks after ``poll_interval`` seconds.

    For a first version of a plugin, or a store without anything better. Such a store does not declare
    `Capability.WAKE`.

    Args:
        poll_interval: in seconds; a fleet of n waiters costs n requests each time.
    """

    def __init__(self, poll_interval: float = 0.5) -> None:
        self.poll_interval = poll_interval
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._topics: set[Topic] = set()

    def fileno(self) -> int:
        """Return a descriptor that never becomes readable."""
        return self._descriptor

    def add(self, topic: Topic) -> None:
        """Remember the topic."""
        self._topics.add(topic)

    def remove(self, topic: Topic) -> None:
        """Forget the topic."""
        self._topics.discard(topic)

    def drain(self) -> frozenset[Topic]:
        """Return every watched scope: each may have changed."""
        return frozenset(topic for topic in self._topics if topic.kind == "markers")

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
