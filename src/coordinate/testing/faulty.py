"""A store whose answers get lost, late or doubled, around any real one.

A program that survives a kill may still not survive an answer that was lost: the store has done it, the program does
not know. `FaultyBackend` lets a test decide, operation by operation, what happens on the way::

    coordinator, store = faulty_coordinator("memory://test")
    store.plan("put_marker", Fault.LOSE)
    coordinator.run_once("migrate", "r1", work)       # its record is written, its answer lost, and written again

It raises and answers only what a real store may: `BackendUnavailable`, and `Unknown` for renewals.
"""

from __future__ import annotations

import enum
from collections import defaultdict, deque
from typing import TYPE_CHECKING, ClassVar, TypeVar

from coordinate import config
from coordinate._clock import SYSTEM, Clock
from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.coordinator import Coordinator
from coordinate.errors import BackendUnavailable
from coordinate.types import RenewAnswer, Topic, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinate.types import (
        AcquireAnswer,
        Capability,
        Claim,
        Finding,
        Grant,
        LeaseRecord,
        MarkerRecord,
        MarkerView,
        Owner,
    )
    from coordinate.url import StoreUrl

T = TypeVar("T")


class Fault(enum.Enum):
    """What happens to one request."""

    NONE = "none"
    """It works: for a list of faults in which some requests are spared."""
    DROP = "dropped"
    """It never arrives; the caller gets no answer."""
    LOSE = "lost"
    """It arrives and is done; its answer is lost."""
    DELAY = "delayed"
    """The caller gets no answer; it arrives when the test calls `FaultyBackend.deliver`."""
    DUPLICATE = "duplicated"
    """It arrives and is done twice, one right after the other; the caller gets the second answer."""


class FaultyBackend(Backend):
    """Wraps a backend of any kind. Watches, `describe` and the like are handed through as they are.

    Args:
        inner: does the work.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    default_url: ClassVar[str] = ""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.calls: list[tuple[str, Fault]] = []
        """Every request so far, with what happened to it."""
        self._plans: dict[str, deque[Fault]] = defaultdict(deque)
        self._late: list[Callable[[], object]] = []

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> Backend:
        """Return the wrapped backend of a URL."""
        from coordinate._plugins import backend_class

        return cls(backend_class(url.scheme).open(url, settings))

    def plan(self, operation: str, *faults: Fault) -> None:
        """Let the next requests of an operation (``acquire``, ``put_marker``, ...) meet these faults, in order."""
        if operation not in Backend.__abstractmethods__:
            message = f"{operation!r} is no operation of the port: {', '.join(sorted(Backend.__abstractmethods__))}"
            raise ValueError(message)
        self._plans[operation].extend(faults)

    def deliver(self) -> int:
        """Let all delayed requests arrive now, in order, as late ones do: nobody reads their answers. How many?"""
        late, self._late = self._late, []
        for act in late:
            try:
                act()
            except Exception as refused:  # noqa: BLE001 -- an answer like any other, and nobody reads it
                self.calls.append((f"refused: {type(refused).__name__}", Fault.DELAY))
        return len(late)

    def _ask(self, operation: str, act: Callable[[], T]) -> T:
        plan = self._plans[operation]
        fault = plan.popleft() if plan else Fault.NONE
        self.calls.append((operation, fault))
        if fault is Fault.NONE:
            return act()
        if fault is Fault.DUPLICATE:
            act()
            return act()
        if fault is Fault.DELAY:
            self._late.append(act)
        elif fault is Fault.LOSE:
            act()
        message = f"{operation} {fault.value} by order of the test"
        raise BackendUnavailable(message)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what the wrapped store guarantees."""
        return self.inner.capabilities

    @property
    def store_id(self) -> str:
        """Return the wrapped store's."""
        return self.inner.store_id

    def acquire(
        self, name: str, owner: Owner, ttl: float, *, floor: int = 0, queue: Watch | None = None, unled: bool = False
    ) -> AcquireAnswer:
        """Ask for a lease."""
        return self._ask("acquire", lambda: self.inner.acquire(name, owner, ttl, floor=floor, queue=queue, unled=unled))

    def withdraw(self, name: str, owner: Owner) -> None:
        """Leave the line."""
        self._ask("withdraw", lambda: self.inner.withdraw(name, owner))

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Extend leases; without an answer they are `Unknown`."""
        try:
            return self._ask("renew", lambda: self.inner.renew(grants))
        except BackendUnavailable as error:
            return [Unknown(str(error)) for _ in grants]

    def release(self, grant: Grant) -> bool:
        """End a lease."""
        return self._ask("release", lambda: self.inner.release(grant))

    def holder(self, name: str) -> LeaseRecord | None:
        """Return who holds a lease."""
        return self._ask("holder", lambda: self.inner.holder(name))

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return held leases."""
        return self._ask("leases", lambda: self.inner.leases(prefix))

    def break_lease(self, name: str) -> int:
        """End a lease by force."""
        return self._ask("break_lease", lambda: self.inner.break_lease(name))

    def claim(self, scope: str, claim: Claim) -> None:
        """Register a token."""
        self._ask("claim", lambda: self.inner.claim(scope, claim))

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Store a record."""
        self._ask("put_marker", lambda: self.inner.put_marker(scope, record, token))

    def markers(self, scope: str) -> MarkerView:
        """Return claim and records."""
        return self._ask("markers", lambda: self.inner.markers(scope))

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        return self._ask("delete_marker", lambda: self.inner.delete_marker(scope, step, revision))

    def scopes(self) -> list[str]:
        """Return known scopes."""
        return self._ask("scopes", self.inner.scopes)

    def watch(self) -> Watch:
        """Return a channel of the wrapped store."""
        return self._ask("watch", self.inner.watch)

    def notify(self, topic: Topic) -> None:
        """Wake those who watch a topic."""
        self._ask("notify", lambda: self.inner.notify(topic))

    def ping(self) -> None:
        """Make a round trip."""
        self._ask("ping", self.inner.ping)

    def describe(self) -> dict[str, str]:
        """Return the wrapped store's facts."""
        return self._ask("describe", self.inner.describe)

    def doctor(self) -> list[Finding]:
        """Return the wrapped store's findings."""
        return self.inner.doctor()

    def descriptors(self, grant: Grant) -> tuple[int, ...]:
        """Return the wrapped store's descriptors of a lease."""
        return self.inner.descriptors(grant)

    def close(self) -> None:
        """Close the wrapped store."""
        self.inner.close()


class _FaultyCoordinator(Coordinator):
    def _open(self, url: StoreUrl) -> Backend:
        return FaultyBackend(super()._open(url))


def faulty_coordinator(
    url: str, *, markers_url: str | None = None, ttl: float = 30.0, clock: Clock = SYSTEM
) -> tuple[Coordinator, FaultyBackend]:
    """Return a coordinator as `coordinate.connect` would, and the faulty store that holds its leases.

    With ``markers_url`` its ``marker_backend`` is another `FaultyBackend`.
    """
    settings = config.load(url, markers_url=markers_url, ttl=ttl, environ={})
    coordinator = _FaultyCoordinator(settings, clock)
    store = coordinator.backend
    assert isinstance(store, FaultyBackend)
    return coordinator, store
