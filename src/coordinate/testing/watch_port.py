"""Contract of waiting: who is woken, by what, and that nothing is missed."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.testing.contract import ClientContract
from coordinate.testing.kit import record
from coordinate.testing.lease_port import granted
from coordinate.types import Capability, Claim, Granted, Held, MarkerState, Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate.backend import Backend, Watch
    from coordinate.testing.kit import OpenBackend
    from coordinate.types import MarkerRecord


def woken(watch: Watch, topic: Topic, within: float = 30.0) -> bool:
    """Return whether the watch reports the topic in time; other topics may come, too."""
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        if topic in watch.drain():
            return True
        select.select([watch.fileno()], [], [], min(left, 0.1))
    return topic in watch.drain()


def readable(watch: Watch, within: float) -> bool:
    """Return whether the channel's descriptor asks for attention in time."""
    return bool(select.select([watch.fileno()], [], [], within)[0])


class WatchPortContract(ClientContract, sealed=True):
    """Subclass with a fixture ``open_backend``; see `coordinate.testing`."""

    @pytest.fixture
    def watch(self, other: Backend) -> Iterator[Watch]:
        """A waiting channel of the other client."""
        watch = other.watch()
        yield watch
        watch.close()

    def test_a_release_wakes_a_queued_waiter_where_declared(
        self, backend: Backend, other: Backend, watch: Watch
    ) -> None:
        """The waiter is told and gets the lease; without the capability it finds out by its poll interval."""
        grant = granted(backend, "handed")
        owner = mint()
        topic = Topic("lease", "handed", owner.nonce)
        watch.add(topic)
        assert isinstance(other.acquire("handed", owner, 30, queue=watch), Held)
        assert not woken(watch, topic, within=0.05)
        backend.release(grant)
        if Capability.WAKE in other.capabilities:
            assert woken(watch, topic, self.patience)
        else:
            assert not woken(watch, topic, within=0.2), "releases wake waiters here: declare wake"
            assert watch.poll_interval <= 1.0
        assert isinstance(other.acquire("handed", owner, 30, queue=watch), Granted)

    def test_a_release_wakes_one_waiter_and_no_herd(self, open_backend: OpenBackend) -> None:
        """The others sleep on: one release is worth one turn."""
        backend, lines = open_backend(), []
        grant = granted(backend, "herd")
        for client in (open_backend(), open_backend(), open_backend()):
            watch, owner = client.watch(), mint()
            topic = Topic("lease", "herd", owner.nonce)
            watch.add(topic)
            assert isinstance(client.acquire("herd", owner, 30, queue=watch), Held)
            lines.append((watch, topic))
        # A channel may report once too often while it is being set up; a herd is what a release causes.
        for watch, topic in lines:
            woken(watch, topic, within=0.2)
        backend.release(grant)
        deadline, turns = time.monotonic() + self.patience, 0
        wanted = Capability.WAKE in backend.capabilities
        while wanted and not turns and time.monotonic() < deadline:
            turns = sum(woken(watch, topic, within=0.05) for watch, topic in lines)
        turns += sum(woken(watch, topic, within=0.1) for watch, topic in lines)
        assert turns == wanted
        for watch, _ in lines:
            watch.close()

    def test_a_change_between_looking_and_sleeping_is_not_missed(self, backend: Backend, watch: Watch) -> None:
        """What happens after `add` is reported, however often somebody has drained in between."""
        topic = Topic("markers", "gap")
        watch.add(topic)
        watch.drain()
        backend.claim("gap", Claim(1, mint()))
        assert woken(watch, topic, self.patience)
        watch.drain()
        backend.claim("gap", Claim(2, mint()))
        assert woken(watch, topic, self.patience)

    def test_a_drained_channel_lets_its_waiters_sleep(self, backend: Backend, watch: Watch) -> None:
        """Its descriptor does not stay readable: that would be a loop without sleep."""
        topic = Topic("markers", "quietly")
        watch.add(topic)
        backend.claim("quietly", Claim(1, mint()))
        assert woken(watch, topic, self.patience)
        deadline = time.monotonic() + self.patience
        while readable(watch, 0.05):
            watch.drain()
            assert time.monotonic() < deadline, "the channel never rests"

    def test_channels_of_one_client_are_independent(self, backend: Backend, other: Backend, watch: Watch) -> None:
        """Closing one, or draining it, takes nothing from another."""
        topic = Topic("markers", "shared")
        second = other.watch()
        for each in (watch, second):
            each.add(topic)
        backend.claim("shared", Claim(1, mint()))
        assert woken(second, topic, self.patience)
        second.close()
        assert woken(watch, topic, self.patience)

    def test_a_broken_lease_wakes_a_waiter_or_is_found_by_polling(
        self, backend: Backend, other: Backend, watch: Watch
    ) -> None:
        """An operator's break is a release for those who wait, once the holder has let go."""
        grant = granted(backend, "broken")
        owner = mint()
        topic = Topic("lease", "broken", owner.nonce)
        watch.add(topic)
        other.acquire("broken", owner, 30, queue=watch)
        backend.break_lease("broken")
        backend.release(grant)
        assert watch.poll_interval <= 1.0 or woken(watch, topic, self.patience)
        assert isinstance(other.acquire("broken", owner, 30), Granted)

    def test_a_waiter_that_leaves_hands_its_turn_on(self, open_backend: OpenBackend) -> None:
        """Woken and gone again: the next in line is told."""
        backend, first, second = open_backend(), open_backend(), open_backend()
        grant = granted(backend, "passed")
        waiters = []
        for client in (first, second):
            watch, owner = client.watch(), mint()
            topic = Topic("lease", "passed", owner.nonce)
            watch.add(topic)
            assert isinstance(client.acquire("passed", owner, 30, queue=watch), Held)
            waiters.append((watch, owner, topic))
        backend.release(grant)
        first.withdraw("passed", waiters[0][1])
        watch, owner, topic = waiters[1]
        assert watch.poll_interval <= 1.0 or woken(watch, topic, self.patience)
        assert isinstance(second.acquire("passed", owner, 30, queue=watch), Granted)
        for watch, _, _ in waiters:
            watch.close()

    def test_withdrawing_without_having_waited_is_harmless(self, backend: Backend) -> None:
        """Also while somebody holds the lease."""
        grant = granted(backend, "untouched")
        backend.withdraw("untouched", mint())
        assert backend.holder("untouched") is not None
        assert backend.release(grant)

    def test_marker_changes_are_reported(self, backend: Backend, watch: Watch) -> None:
        """Claim, record and reset each reach those who watch the scope."""
        topic = Topic("markers", "site")
        watch.add(topic)
        backend.claim("site", Claim(7, mint()))
        assert woken(watch, topic, self.patience)
        backend.put_marker("site", record(token=7), 7)
        assert woken(watch, topic, self.patience)
        backend.delete_marker("site", "migrate", "r1")
        assert woken(watch, topic, self.patience)

    def told(self, watch: Watch, topic: Topic, wanted: MarkerRecord | None) -> bool:
        """Return whether the channel comes to tell that record, or none, and nothing else on the way."""
        deadline = time.monotonic() + self.patience
        while watch.news(topic).record != wanted and time.monotonic() < deadline:
            watch.drain()
            readable(watch, 0.05)
        return watch.news(topic).record == wanted

    def test_what_is_told_with_a_change_is_the_record_that_was_stored_last(
        self, backend: Backend, watch: Watch
    ) -> None:
        """Or nothing: followers believe it without asking. What was told before is not told again."""
        topic, done = Topic("markers", "told"), record(token=7)
        watch.add(topic)
        backend.claim("told", Claim(7, mint()))
        backend.put_marker("told", record(state=MarkerState.IN_PROGRESS, token=7), 7)
        assert self.told(watch, topic, None)
        backend.put_marker("told", done, 7)
        assert woken(watch, topic, self.patience)
        assert watch.news(topic).record in (None, done)
        backend.put_marker("told", record("build", MarkerState.FAILED, token=7), 7)
        assert self.told(watch, topic, None)
        backend.put_marker("told", record("assets", token=7), 7)
        backend.delete_marker("told", "assets", "r1")
        assert self.told(watch, topic, None)

    def test_notify_reaches_watchers_of_the_topic(self, backend: Backend, watch: Watch) -> None:
        """For markers that live in another store."""
        topic = Topic("markers", "elsewhere/site")
        watch.add(topic)
        backend.notify(topic)
        assert watch.poll_interval <= 1.0 or woken(watch, topic, self.patience)

    def test_removed_topics_need_no_attention(self, backend: Backend, watch: Watch) -> None:
        """Removing is allowed for unknown topics, too, and others go on."""
        kept, gone = Topic("markers", "kept"), Topic("markers", "gone")
        watch.add(kept)
        watch.add(gone)
        watch.remove(gone)
        watch.remove(Topic("markers", "unknown"))
        backend.notify(gone)
        backend.claim("kept", Claim(1, mint()))
        assert woken(watch, kept, self.patience)

    quick = 10.0
    """Seconds that ten calls which must not block may take on a busy machine."""

    def test_draining_never_blocks(self, watch: Watch) -> None:
        """With nothing to report it returns at once."""
        started = time.monotonic()
        watch.add(Topic("markers", "quiet"))
        for _ in range(10):
            watch.drain()
        assert time.monotonic() - started < self.quick

    def test_closing_a_watch_twice_is_harmless(self, backend: Backend) -> None:
        """Close is idempotent."""
        watch = backend.watch()
        watch.close()
        watch.close()
