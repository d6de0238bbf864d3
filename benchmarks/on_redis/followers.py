"""Processes that wait until somebody says that a step is done."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from benchmarks.on_redis import ways
from benchmarks.on_redis.fleet import Fleet
from benchmarks.on_redis.server import Requests
from benchmarks.on_redis.table import Table

if TYPE_CHECKING:
    import redis
    from benchmarks.on_redis.fleet import Member
    from benchmarks.on_redis.plan import Plan
    from tests.servers import RedisServer

_SETTLE = 0.5
_ALL_WITHIN = 30.0


class News(ABC):
    """One way to tell and to wait."""

    label: ClassVar[str]

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.name = name

    @abstractmethod
    def prepare(self) -> None:
        """Do what the teller does before there is anything to tell."""

    @abstractmethod
    def tell(self) -> None:
        """Say that it is done."""

    @abstractmethod
    def follow(self) -> None:
        """Return when it is done."""


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

        Follower(self._markers, "step", "1").wait(self._coordinator, _ALL_WITHIN)


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


class Audience(NamedTuple):
    """One process tells, the others follow."""

    kind: type[News]
    port: int
    name: str

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        news = self.kind(self.port, self.name)
        if member.number == 0:
            news.prepare()
            member.ready()
            member.wait_for_go()
            member.mark(0)
            news.tell()
        else:
            member.wait_for_the_first()
            member.ready()
            news.follow()
            member.mark(0)
        member.linger()


class Round(NamedTuple):
    """One measurement: seconds until the last one knew, until each did, and requests while nothing happened."""

    last: float
    each: list[float]
    idle: int


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    table = Table(
        f"{plan.waiters} followers notice that a step is done",
        f"best of {plan.rounds} interleaved rounds by the last one; idle requests of all rounds, {plan.idle:g} s each.",
    )
    kinds: list[type[News]] = [Marker, BareStream, PubSub, *([Poll] if plan.peers else [])]
    rounds: dict[type[News], list[Round]] = {kind: [] for kind in kinds}
    for _ in range(plan.rounds):
        for kind in kinds:
            rounds[kind].append(_round(running, kind, plan))
    best = {kind: min(found) for kind, found in rounds.items()}
    for kind, found in best.items():
        idle = sum(each.idle for each in rounds[kind])
        table.add(
            kind.label,
            p50_ms=statistics.median(found.each) * 1000,
            all_ms=found.last * 1000,
            ratio=found.last / best[BareStream].last,
            idle_requests=idle,
        )
        if kind is Marker:
            table.gates["no request while nothing happens"] = idle == 0
    return [table]


def _round(running: RedisServer, kind: type[News], plan: Plan) -> Round:
    with Fleet(plan.waiters + 1, Audience(kind, running.port, ways.fresh_name("followers"))) as fleet:
        fleet.wait_until_ready()
        time.sleep(_SETTLE)
        watching = Requests(running.port)
        time.sleep(plan.idle)
        idle = watching.stop().total()
        fleet.go.open()
        if fleet.wait_until_marked(0, _ALL_WITHIN) <= plan.waiters:
            message = f"{kind.label}: a follower knew nothing after {_ALL_WITHIN:g} s"
            raise RuntimeError(message)
        told, *known = fleet.marked(0)
    each = [at - told for at in known]
    return Round(max(each), each, idle)
