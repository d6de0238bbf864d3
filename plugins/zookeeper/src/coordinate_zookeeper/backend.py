"""The ``zookeeper://`` store: joins sessions, leases, markers and waiting behind the port."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from kazoo.exceptions import NoNodeError

from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.errors import ConfigError
from coordinate.types import AcquireAnswer, Capability, Finding, Grant, Topic
from coordinate_zookeeper import address as addresses
from coordinate_zookeeper import asking
from coordinate_zookeeper.leases import Leases
from coordinate_zookeeper.markers import Markers
from coordinate_zookeeper.nodes import Nodes
from coordinate_zookeeper.places import Places
from coordinate_zookeeper.sessions import Sessions
from coordinate_zookeeper.watch import ZooKeeperWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import Claim, LeaseRecord, MarkerRecord, MarkerView, Owner, RenewAnswer
    from coordinate.url import StoreUrl
    from coordinate_zookeeper.address import Address


class _Life(NamedTuple):
    """What belongs to one process: a forked child shares none of it."""

    pid: int
    sessions: Sessions
    places: Places
    leases: Leases
    markers: Markers


class ZooKeeperBackend(Backend):
    """Leases and markers on a ZooKeeper ensemble, 3.5 or later.

    Promised: what a majority has acknowledged is not lost; of one line the first node alone holds the lease; a
    holder that dies, is cut off or does not renew loses it after the granted session timeout. Not promised: that
    the granted timeout is the one asked for (``tickTime``, ``minSessionTimeout`` and ``maxSessionTimeout`` of the
    server bound it), and tokens above those of an ensemble that was wiped, unless a marker store supplies the floor.
    """

    schemes: ClassVar[tuple[str, ...]] = ("zookeeper", "zk")
    default_url: ClassVar[str] = "zookeeper://127.0.0.1:2181"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._nodes = Nodes(address.root)
        self._life = self._born()

    def _born(self) -> _Life:
        places = Places()
        sessions = Sessions(self._address, places.sweep)
        leases = Leases(self._nodes, sessions, places)
        return _Life(os.getpid(), sessions, places, leases, Markers(self._nodes, sessions))

    @property
    def _now(self) -> _Life:
        if self._life.pid != os.getpid():
            # The parent's threads do not exist here, and its connections are not ours to use.
            self._life = self._born()
        return self._life

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> ZooKeeperBackend:
        """Return a backend; no connection is made yet."""
        return cls(addresses.read(url, settings))

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what an ensemble guarantees: all there is."""
        return frozenset(Capability)

    @property
    def store_id(self) -> str:
        """Return the servers, in order, and the root of the namespace."""
        return f"zookeeper:{','.join(sorted(self._address.hosts.split(',')))}{self._address.root}"

    def acquire(
        self,
        name: str,
        owner: Owner,
        ttl: float,
        *,
        floor: int = 0,
        queue: Watch | None = None,
        unled: bool = False,  # noqa: ARG002 -- nothing is ever forgotten here
    ) -> AcquireAnswer:
        """Enter the line; the first in it is granted, the others stay if they have a ``queue``."""
        if queue is not None and not isinstance(queue, ZooKeeperWatch):
            message = f"a {type(queue).__name__} cannot wait for zookeeper:// leases"
            raise ConfigError(message)
        return self._now.leases.acquire(name, owner, ttl, floor, queue)

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line. What cannot be removed now is removed when the ensemble answers again."""
        self._now.leases.withdraw(name, owner)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Confirm each lease on its session; without a connection all are `Unknown`, at once."""
        return self._now.leases.renew(grants)

    def doubt(self, grant: Grant) -> str | None:
        """Say so while the session that keeps the lease is suspended, and once it has expired."""
        return self._life.leases.doubt(grant)

    def release(self, grant: Grant) -> bool:
        """Remove the node: the next in line is told by ZooKeeper."""
        return self._now.leases.release(grant)

    def holder(self, name: str) -> LeaseRecord | None:
        """Return who is first in line; ``remaining`` is the most that it can be."""
        return self._now.leases.holder(name)

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return all holders below a prefix."""
        return self._now.leases.leases(prefix)

    def break_lease(self, name: str) -> int:
        """Remove the holder's node and raise the token, at once."""
        return self._now.leases.break_lease(name)

    def claim(self, scope: str, claim: Claim) -> None:
        """Register the token, at the version that was read."""
        self._now.markers.claim(scope, claim)

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Write a record in one transaction with the claim it was written under."""
        self._now.markers.put(scope, record, token)

    def markers(self, scope: str) -> MarkerView:
        """Read claim and records after the leader of the ensemble has been asked for the newest state."""
        return self._now.markers.view(scope)

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Remove a record; also while a leader lives."""
        return self._now.markers.delete(scope, step, revision)

    def scopes(self) -> list[str]:
        """Return the scopes with a claim or a record."""
        return self._now.markers.scopes()

    def watch(self) -> Watch:
        """Return a new channel on a connection that there is."""
        return ZooKeeperWatch(self._nodes, self._now.sessions)

    def notify(self, topic: Topic) -> None:
        """Write the scope's node as it is; nobody waits for a lease but through `acquire`."""
        if topic.kind == "markers":
            self._now.markers.announce(topic.name)

    def ping(self) -> None:
        """Ask the leader of the ensemble, and read what only those with our credentials may read."""
        root = self._address.root
        self._now.sessions.any().ask("ping", [asking.sync(root), asking.get(root)])

    def describe(self) -> dict[str, str]:
        """Return the address and what the server granted."""
        session = self._now.sessions.any()
        session.ready("describe")
        return {
            "kind": "zookeeper",
            "address": self._address.shown,
            "root": self._address.root,
            "session timeout": f"{session.granted:g} s granted of {session.length:g} s",
        }

    def doctor(self) -> list[Finding]:
        """Return whether our nodes lie where everybody may remove them, although we have credentials."""
        root = self._address.root
        if not self._address.secured:
            return []
        (answer,) = self._now.sessions.any().ask("look at ACLs", [lambda driver: driver.get_acls_async(root)])
        if isinstance(answer, NoNodeError):
            return []
        if not any(entry.id.scheme == "world" and entry.perms for entry in answer[0]):
            return []
        return [
            Finding(
                f"ACL of {root} on {self._address.shown}: open to everybody",
                "who can reach the ensemble can remove leases and markers: the node was made without credentials",
                "setAcl -R on it with an administrator's client, to the credentials of the URL",
            )
        ]

    def close(self) -> None:
        """Disconnect. A session in which leases are held is left to expire, with them; the others end at once."""
        if self._life.pid == os.getpid():
            self._life.sessions.close(self._life.places.held)
