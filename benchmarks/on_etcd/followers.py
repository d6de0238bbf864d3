"""Followers of a step, see ``benchmarks/common/followers.py``, on etcd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import followers
from benchmarks.common.followers import ALL_WITHIN, News
from benchmarks.on_etcd import ways
from benchmarks.on_etcd.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from tests.stacks.etcd import Etcd


class Marker(News):
    """A durable marker, written under a claimed lease; each follower returns with its record."""

    label = "coordinate marker"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        from coordinate import connect

        self._coordinator = connect(ways.url(port), namespace="bench", ttl=300)
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


class BareWatch(News):
    """The limit: a key that followers watch, on one stream each."""

    label = "bare watch"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        from benchmarks.on_etcd.bare import Member

        self._member = Member(port)
        self._key = name.encode()

    def prepare(self) -> None:
        """Nothing to do."""

    def tell(self) -> None:
        """Write the key."""
        self._member.put(self._key, b"done")

    def follow(self) -> None:
        """Read the first change."""
        next(event for event in self._member.events(self._key) if event is not None)


def measure(ensemble: Etcd, plan: Plan) -> list[Table]:
    """Return the table."""
    return followers.measure(of(known(ensemble), keepalive=False), (Marker, BareWatch), plan)
