"""The ``etcd://`` store: joins leases, waiting and markers behind the port."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar

from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.errors import BackendUnavailable, ConfigError, PluginError
from coordinate.types import AcquireAnswer, Capability, Topic

try:
    from coordinate_etcd.loader import load

    _etcd = load()
except (ImportError, TypeError) as error:
    _message = f"etcd3 and its libraries cannot be used ({error}): pip install --force-reinstall coordinate-etcd"
    raise PluginError(_message) from error

from coordinate_etcd import options
from coordinate_etcd.ensemble import Ensemble
from coordinate_etcd.failures import LeaseMissing
from coordinate_etcd.keys import Keys
from coordinate_etcd.leases import Leases
from coordinate_etcd.line import Line
from coordinate_etcd.markers import Markers
from coordinate_etcd.watch import EtcdWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import Claim, Grant, LeaseRecord, MarkerRecord, MarkerView, Owner, RenewAnswer
    from coordinate.url import StoreUrl


class EtcdBackend(Backend):
    """Leases and markers on an etcd ensemble, any number of hosts sharing them.

    Promised: what was acknowledged survives every failover and restart that leaves a majority's disks whole; a lease
    is granted only when the server lease of the last holder is over; tokens grow also after the ensemble lost all its
    data, where a marker store supplies the floor. Not promised: that an expired lease is free at once. etcd counts
    whole seconds (a lease lives up to one longer than asked for), looks twice a second, has a least length of its own
    (2 s by default), and gives all leases their full length again when the leader changes.
    """

    schemes: ClassVar[tuple[str, ...]] = ("etcd", "etcds")
    default_url: ClassVar[str] = "etcd://127.0.0.1:2379"

    def __init__(self, checked: options.Options, settings: StoreSettings) -> None:
        keys = Keys(checked.prefix)
        ensemble = Ensemble(checked, settings.clock)
        self._checked = checked
        self._keys = keys
        self._ensemble = ensemble
        self._leases = Leases(ensemble, keys, settings.clock)
        self._line = Line(ensemble, keys, settings.clock, self._leases)
        self._markers = Markers(ensemble, keys)
        self._closed = False

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> EtcdBackend:
        """Return a backend for the URL; nothing is connected yet."""
        return cls(options.read(url, settings), settings)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what a replicated log on disks guarantees: everything that there is a word for."""
        return frozenset(Capability)

    @property
    def store_id(self) -> str:
        """Return the sorted endpoints and the prefix."""
        return f"etcd:{','.join(sorted(self._checked.endpoints))}{self._checked.prefix.rstrip('/')}"

    def acquire(
        self,
        name: str,
        owner: Owner,
        ttl: float,
        *,
        floor: int = 0,
        queue: Watch | None = None,
        unled: bool = False,  # noqa: ARG002 -- nothing that was acknowledged is ever forgotten
    ) -> AcquireAnswer:
        """Grant the lease in one transaction, or say who holds it."""
        if queue is None:
            with self._ensemble.operation():
                return self._leases.acquire(name, owner, ttl, floor)
        if not isinstance(queue, EtcdWatch):
            message = f"a {type(queue).__name__} cannot wait for etcd:// leases"
            raise ConfigError(message)
        with self._ensemble.operation():
            return self._line.acquire(name, owner, ttl, floor, queue)

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line of waiters."""
        with self._ensemble.operation():
            self._line.withdraw(name, owner)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Keep the server leases alive and confirm each key: two requests for up to 64 grants of one length."""
        with self._ensemble.operation():
            return self._leases.renew(grants)

    def release(self, grant: Grant) -> bool:
        """Remove the lease's key in one transaction; its removal wakes the first in line."""
        with self._ensemble.operation():
            return self._leases.release(grant)

    def holder(self, name: str) -> LeaseRecord | None:
        """Return who holds it; ``remaining`` is the server's, in whole seconds."""
        with self._ensemble.operation():
            return self._leases.holder(name)

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return the held leases below a prefix."""
        with self._ensemble.operation():
            return self._leases.leases(prefix)

    def break_lease(self, name: str) -> int:
        """Remove the lease's key, whoever's it is."""
        with self._ensemble.operation():
            return self._leases.break_lease(name)

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a leader by compare-and-swap."""
        with self._ensemble.operation():
            self._markers.claim(scope, claim)

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record by compare-and-swap, under an unchanged claim."""
        with self._ensemble.operation():
            self._markers.put(scope, record, token)

    def markers(self, scope: str) -> MarkerView:
        """Return claim and records as they were at one revision."""
        return self._markers.view(scope)

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        return self._markers.delete(scope, step, revision)

    def scopes(self) -> list[str]:
        """Return the scopes with a claim or a record."""
        return self._markers.scopes()

    def watch(self) -> Watch:
        """Return a new channel; its stream is opened when there is something to watch."""
        return EtcdWatch(self._ensemble, self._keys, self._pass_on)

    def _pass_on(self, topic: Topic) -> None:
        self._line.leave(topic.name, topic.nonce)

    def notify(self, topic: Topic) -> None:
        """Touch a key that those who watch a scope notice. A lease's waiters need no telling."""
        if topic.kind == "markers":
            self._markers.ring(topic.name)

    def ping(self) -> None:
        """Read through a quorum, as the user of the URL."""
        self._markers.probe()

    def describe(self) -> dict[str, str]:
        """Return address, version of the member that answered, and the size of its data."""
        status = self._ensemble.call("ask for the status", "Status", _etcd.StatusRequest()).message
        return {
            "kind": "etcd",
            "address": str(self._checked.url),
            "version": str(status.version),
            "data": f"{status.dbSize} bytes",
            "leader": f"{status.leader:x}, term {status.raftTerm}",
        }

    def close(self) -> None:
        """Give back server leases on which nothing hangs, and disconnect. What is held is left to expire."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(BackendUnavailable, LeaseMissing):
            for number in self._leases.sessions.idle():
                self._ensemble.call("close", "LeaseRevoke", _etcd.LeaseRevokeRequest(ID=number))
        self._ensemble.close()
