"""Followers of a step, see ``benchmarks/common/followers.py``, on ZooKeeper."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from benchmarks.common import followers
from benchmarks.common.followers import ALL_WITHIN, News
from benchmarks.on_zookeeper import ways
from benchmarks.on_zookeeper.server import known, of

if TYPE_CHECKING:
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from zookeeper_ensemble import Ensemble


class Marker(News):
    """A durable marker, written under a claimed lease; each follower returns with its record."""

    label = "coordinate marker"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        from coordinate import connect

        self._coordinator = connect(ways.url(port), namespace="bench", ttl=30)
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
    """The limit: a node that followers wait for."""

    label = "bare watch"

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        self._client = ways.client(port, 10.0)  # as long as ours: the shorter, the more pings
        self._path = f"/news-{name}"

    def prepare(self) -> None:
        """Nothing to do."""

    def tell(self) -> None:
        """Create the node."""
        self._client.create(self._path, b"done")

    def follow(self) -> None:
        """Wait until it is there."""
        there = threading.Event()
        if not self._client.exists(self._path, watch=lambda _: there.set()):
            there.wait()


def measure(ensemble: Ensemble, plan: Plan) -> list[Table]:
    """Return the table."""
    tables = followers.measure(of(known(ensemble)), (Marker, BareWatch), plan)
    for table in tables:
        ours, bare = (float(table.rows[kind.label]["idle_requests"]) for kind in (Marker, BareWatch))
        table.gates.clear()
        table.gates["no more packets than the pings of bare sessions"] = ours <= 2 * bare + plan.waiters
    return tables
