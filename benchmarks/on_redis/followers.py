"""Followers of a step, see ``benchmarks/common/followers.py``, on Redis."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.common import followers
from benchmarks.common.followers import ALL_WITHIN, News
from benchmarks.on_redis import ways
from benchmarks.on_redis.server import of

if TYPE_CHECKING:
    import redis
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.servers import RedisServer


class Marker(News):
    """A durable marker, written under a claimed lease; each follower returns with its record."""

    label = "coordinate marker"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        from coordinate import connect

        self._coordinator = connect(f"redis://127.0.0.1:{port}/0", namespace="bench", ttl=600)
        self._markers = self._coordinator.markers(name)

    def prepare(self) -> None:
        """Lead, claim and begin."""
        self._markers.claim(self._coordinator.lease(self.name).acquire(), self._coordinator.backend.store_id)
        self._begun = self._markers.begin("step", "1")

    def tell(self) -> None:
        """Record that it is done."""
        self._markers.done(self._begun)

    def follow(self) -> None:
        """Wait as ``coordinate wait`` does."""
        from coordinate._following import Follower

        Follower(self._markers, "step", "1").wait(self._coordinator, ALL_WITHIN)


class BareStream(News):
    """The limit: a stream that followers read from its beginning, blocking."""

    label = "bare XREAD BLOCK"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        self._redis = ways.client(port, socket_timeout=None)
        self._redis.ping()

    def prepare(self) -> None:
        """Nothing to do."""

    def tell(self) -> None:
        """Add an entry."""
        self._redis.xadd(self.name, {"state": "done"})

    def follow(self) -> None:
        """Read it."""
        self._redis.xread({self.name: "0"}, block=0)


class PubSub(News):
    """What people write by hand on redis-py: subscribe, look, listen."""

    label = "hand-written pub/sub"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        self._redis: redis.Redis = ways.client(port, socket_timeout=None)
        self._redis.ping()

    def prepare(self) -> None:
        """Nothing to do."""

    def tell(self) -> None:
        """Set and publish."""
        self._redis.set(self.name, "done")
        self._redis.publish(self.name, "done")

    def follow(self) -> None:
        """Listen, unless it is there."""
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(self.name)
            if not self._redis.get(self.name):
                next(channel.listen())


class Poll(PubSub):
    """The original image's way, on Redis: look every 2 s."""

    label = "polling, 2 s"

    def follow(self) -> None:
        """Look until it is there."""
        while not self._redis.get(self.name):
            time.sleep(2)


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    return followers.measure(of(running), (Marker, BareStream, PubSub, *((Poll,) if plan.peers else ())), plan)
