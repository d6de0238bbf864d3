"""Stores whose waiting channels break a promise."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coordinate.backend import News
from coordinate.backends.memory import MemoryWatch
from coordinate.types import MarkerState

if TYPE_CHECKING:
    from coordinate.backend import Watch
    from coordinate.types import Topic


from tests.conformance.broken.sound import Sound


class ForgetfulWatch(MemoryWatch):
    """Draining an empty channel loses the topics."""

    def drain(self) -> frozenset[Topic]:
        """Report, and stop watching."""
        found = super().drain()
        self.topics.clear()
        return found


class MissesChanges(Sound):
    """A change between two looks is missed."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return ForgetfulWatch(self._store)


class NostalgicWatch(MemoryWatch):
    """Tells what was done once, whatever has happened since."""

    def news(self, topic: Topic) -> News:
        """Return the first record of the scope that says done."""
        records = self._store.markers.get(topic.name, {})
        self.known = getattr(self, "known", None) or next(
            (record for record in records.values() if record.state is MarkerState.DONE), None
        )
        return News(1, self.known)


class TellsTheOld(Sound):
    """Followers believe what is not so any more."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return NostalgicWatch(self._store)


class RestlessWatch(MemoryWatch):
    """Stays readable for ever."""

    def fileno(self) -> int:
        """Return a descriptor that always is."""
        return self._always

    def __init__(self, store: object) -> None:
        super().__init__(store)
        import os

        self._always, end = os.pipe()
        os.close(end)

    def close(self) -> None:
        """Close that one, too."""
        import contextlib
        import os

        super().close()
        with contextlib.suppress(OSError):
            os.close(self._always)


class NeverRests(Sound):
    """A waiter never sleeps."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return RestlessWatch(self._store)


class BlockingWatch(MemoryWatch):
    """Waits for something to report."""

    def drain(self) -> frozenset[Topic]:
        """Take a while."""
        time.sleep(0.25)
        return super().drain()


class DrainBlocks(Sound):
    """Draining waits."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return BlockingWatch(self._store)


CAUGHT_BY: dict[type[Sound], str] = {
    MissesChanges: "test_a_change_between_looking_and_sleeping_is_not_missed",
    TellsTheOld: "test_what_is_told_with_a_change_is_the_record_that_was_stored_last",
    NeverRests: "test_a_drained_channel_lets_its_waiters_sleep",
    DrainBlocks: "test_draining_never_blocks",
}
