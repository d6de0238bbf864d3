"""Followers on Redis are told what was stored: no request of each of them, and never something old."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._following import Follower
from coordinate.errors import WaitTimeout
from coordinate.testing import eventually
from coordinate.types import MarkerState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from coordinate import Coordinator
    from coordinate.marker import Markers
    from coordinate.types import MarkerRecord
    from tests.servers import RedisServer


class Following(threading.Thread):
    """Somebody who waits for a step in a process, or at least a coordinator, of his own."""

    def __init__(self, url: str, timeout: float = 20.0) -> None:
        super().__init__(daemon=True)
        self.coordinator = connect(url, ttl=60)
        self.timeout = timeout
        self.found: MarkerRecord | None = None
        self.late: WaitTimeout | None = None

    def run(self) -> None:
        """Wait."""
        try:
            self.found = Follower(self.coordinator.markers("site"), "migrate", "r1").wait(
                self.coordinator, self.timeout
            )
        except WaitTimeout as error:
            self.late = error

    def end(self) -> None:
        """Return when it has ended."""
        self.join(60)
        assert not self.is_alive()
        self.coordinator.close()


@pytest.fixture
def leader(shared: RedisServer, admin: redis.Redis) -> Iterator[tuple[Coordinator, Markers]]:
    """Lead the scope, with a step begun."""
    del admin
    with connect(shared.url, ttl=60) as coordinator:
        markers = coordinator.markers("site")
        markers.claim(coordinator.lease("site").acquire(10), coordinator.backend.store_id)
        yield coordinator, markers


def listening(admin: redis.Redis, count: int) -> bool:
    """Return whether so many listen to the scope."""
    channels = [name for name in admin.pubsub_channels() if b"site" in name]
    return sum(number for _, number in admin.pubsub_numsub(*channels)) >= count if channels else False


def scripts_run(admin: redis.Redis) -> int:
    """Return how many scripts the server has run."""
    stats = admin.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def test_who_waits_is_told_without_asking(
    shared: RedisServer, admin: redis.Redis, leader: tuple[Coordinator, Markers]
) -> None:
    """The record arrives with the push: no script runs but the writer's, and his greeting after a silence."""
    _, markers = leader
    begun = markers.begin("migrate", "r1")
    followers = [Following(shared.url) for _ in range(4)]
    for each in followers:
        each.start()
    eventually(lambda: listening(admin, 4), what="followers")
    time.sleep(0.3)  # their first look, after they have subscribed
    before = scripts_run(admin)
    done = markers.done(begun, "all is well")
    for each in followers:
        each.end()
        assert each.found == done
    assert scripts_run(admin) - before <= 2


def test_other_news_of_the_scope_is_not_taken_for_ours(
    shared: RedisServer, admin: redis.Redis, leader: tuple[Coordinator, Markers]
) -> None:
    """Another step that is done, another revision, a failure: the follower looks, and goes on waiting."""
    _, markers = leader
    follower = Following(shared.url)
    follower.start()
    eventually(lambda: listening(admin, 1), what="the follower")
    markers.done(markers.begin("config", "r1"))
    markers.done(markers.begin("migrate", "r0"))
    failed = markers.failed(markers.begin("migrate", "r1"), "no")
    time.sleep(0.2)
    assert follower.is_alive()
    markers.done(markers.begin("migrate", "r1", failed))
    follower.end()
    assert follower.found is not None
    assert follower.found.state is MarkerState.DONE


def test_what_was_told_before_a_reset_is_not_believed_afterwards(
    shared: RedisServer, leader: tuple[Coordinator, Markers]
) -> None:
    """Old news stays with the channel; whoever begins to wait looks first, and believes what comes after that only."""
    _, markers = leader
    with connect(shared.url, ttl=60) as other, other.hub.wait((other.backend, markers.topic)):
        # The wait that is open keeps the channel subscribed.
        markers.done(markers.begin("migrate", "r1"))
        channel = other.hub.channel(other.backend)
        assert channel is not None
        eventually(lambda: channel.drain() or channel.news(markers.topic).record is not None, what="the news")
        assert markers.reset("migrate", "r1")
        with pytest.raises(WaitTimeout):
            Follower(other.markers("site"), "migrate", "r1").wait(other, 0.7)
