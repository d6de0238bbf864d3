"""The front door: from a URL to leases, markers and work that happens once."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Self

from coordinate import config
from coordinate._clock import SYSTEM, Clock
from coordinate._holding import Limits, Shared
from coordinate._keeper import Keeper
from coordinate._names import check_name
from coordinate._plugins import backend_class
from coordinate._waiting import Hub
from coordinate.backend import StoreSettings
from coordinate.config import Timing
from coordinate.errors import ConfigError, Unsupported
from coordinate.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from coordinate._supervise import Command, Supervisor
    from coordinate.backend import Backend
    from coordinate.config import Settings
    from coordinate.marker import Markers
    from coordinate.steps import Outcome
    from coordinate.types import Capability
    from coordinate.url import StoreUrl

MAX_TTL = 3600.0


def connect(
    url: str | None = None,
    *,
    markers_url: str | None = None,
    namespace: str | None = None,
    ttl: float | None = None,
    holder: str | None = None,
    require: Collection[Capability] = (),
) -> Coordinator:
    """Return a coordinator for the stores that the arguments or the environment name (see `coordinate.config`).

    Connects lazily: an unreachable server shows at the first operation. Use it as a context manager.

    Args:
        url: lease store; default ``COORDINATE_URL``.
        markers_url: marker store; default ``COORDINATE_MARKERS_URL``, else the lease store.
        namespace: separates users of one store.
        ttl: length of its leases in seconds.
        holder: how this process is shown to others.
        require: capabilities that the lease store must declare.

    Raises:
        ConfigError: a value that cannot work, or a plugin that is missing.
        Unsupported: a required capability is not declared; the message says why, and what would change that.

    Example:
        >>> with connect("memory://") as coordinator:
        ...     with coordinator.lease("nightly-report") as lease:
        ...         lease.check()
    """
    settings = config.load(url, markers_url=markers_url, namespace=namespace, ttl=ttl, holder=holder)
    coordinator = Coordinator(settings)
    # Asking a store for its capabilities may need a round trip: only when somebody wants to know.
    wanted = set(require)
    backend = coordinator.backend
    missing = sorted(wanted - backend.capabilities, key=lambda each: each.value) if wanted else []
    if missing:
        reasons = "; ".join(f"{each.value} ({backend.lacks(each)})" for each in missing)
        coordinator.close()
        message = f"{settings.url} does not promise: {reasons}"
        raise Unsupported(message)
    return coordinator


class Coordinator:
    """Leases and markers of one process on one or two stores. Thread-safe; not to be used across a fork."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM) -> None:
        self.settings = settings
        self.clock = clock
        self.backend = self._open(settings.url)
        self.marker_backend = self._open(settings.markers_url) if settings.markers_url else self.backend
        self.hub = Hub(clock)
        self._keeper = Keeper(self.backend, clock)
        self._shared = Shared(self.backend, clock, self.hub, self._keeper, settings.holder)
        self._pid = os.getpid()

    def _open(self, url: StoreUrl) -> Backend:
        timing = self.settings.timing
        store = StoreSettings(self.settings.namespace, timing.timeout, max(MAX_TTL, timing.ttl), self.clock)
        return backend_class(url.scheme).open(url, store)

    def lease(
        self,
        name: str,
        *,
        ttl: float | None = None,
        renew_deadline: float | None = None,
        retry_period: float | None = None,
        max_hold: float = math.inf,
        progress: float = math.inf,
    ) -> Lease:
        """Return a contender for a name; it holds nothing until `Lease.acquire`.

        Args:
            name: segments joined by ``/``.
            ttl: length in seconds; default the coordinator's.
            renew_deadline: without a good renewal for this long the lease counts as lost; default 2/3 of the ttl.
            retry_period: seconds between renewals; default 1/6 of the ttl.
            max_hold: seconds after which it is lost in any case.
            progress: seconds within which `Lease.touch` has to be called again.

        Raises:
            ConfigError: a bad name, or timing relations that cannot work.
        """
        base = self.settings.timing
        timing = base
        if ttl is not None or renew_deadline is not None or retry_period is not None:
            timing = Timing.of(base.ttl if ttl is None else ttl, renew_deadline, retry_period, base.timeout)
        if timing.ttl > MAX_TTL:
            message = f"ttl ({timing.ttl:g} s) must not be above the namespace's max_ttl ({MAX_TTL:g} s)"
            raise ConfigError(message)
        return Lease(self._shared, check_name(name, "lease name"), timing, Limits(max_hold, progress))

    def markers(self, scope: str) -> Markers:
        """Return the records of a scope."""
        from coordinate.marker import Markers  # noqa: PLC0415 -- a lease alone needs none of it

        return Markers(self.marker_backend, scope, self.clock, announce=self.backend)

    def run_once(self, step: str, revision: str, function: Callable[[], object], *, timeout: float = 3600.0) -> Outcome:
        """Run ``function`` once over the fleet for this step and revision; everybody else waits for it.

        It may run again if the process that ran it died before its success was recorded: it must be re-runnable.

        Returns:
            ``RAN`` here, ``WAITED`` for another process, or ``ALREADY_DONE``.

        Raises:
            StepFailed: the failure budget (one attempt) is spent; the function's own error is raised where it ran.
            WaitTimeout, BackendUnavailable, LeaseLost, Interrupted: see `coordinate.steps.run`.
        """
        from coordinate import steps  # noqa: PLC0415 -- steps builds on this module

        return steps.run_function(self, step, revision, function, timeout)

    def supervise(self, lease: Lease, command: Command) -> Supervisor:
        """Return a runner for a guarded command under a lease of this coordinator."""
        from coordinate._supervise import Supervisor  # noqa: PLC0415 -- not every user runs commands

        return Supervisor(lease, self.hub, self.clock, command)

    def interrupt(self, signum: int) -> None:
        """Make every wait and every guarded command of this coordinator end with `Interrupted`. Signal-safe."""
        self.hub.ring(signum)

    def close(self) -> None:
        """Stop waiting and close connections. Leases that are still held are left to expire. Idempotent."""
        if self._pid != os.getpid():
            return
        self._keeper.close()
        self.hub.close()
        with contextlib.ExitStack() as stack:
            stack.callback(self.backend.close)
            if self.marker_backend is not self.backend:
                stack.callback(self.marker_backend.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
