"""Waiting for somebody else's step, without ever leading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.errors import BackendUnavailable, WaitTimeout
from coordinate.types import MarkerState

if TYPE_CHECKING:
    from coordinate.coordinator import Coordinator
    from coordinate.marker import Markers
    from coordinate.types import MarkerRecord

_RETRY_UNAVAILABLE = 0.25
_ENDED = {MarkerState.DONE, MarkerState.FAILED}


def follow(coordinator: Coordinator, markers: Markers, step: str, revision: str, timeout: float) -> MarkerRecord:
    """Return the record of a step once it is done or failed.

    Raises:
        WaitTimeout: neither within ``timeout`` seconds.
        BackendUnavailable: no usable answer at the end of the wait.
        Interrupted: a signal asked this process to stop.
    """
    clock = coordinator.clock
    ends_at = clock.now() + timeout
    backends = {coordinator.backend, coordinator.marker_backend}
    outage: BackendUnavailable | None = None
    with coordinator.hub.wait(*((backend, markers.topic) for backend in backends)) as wait:
        while True:
            coordinator.hub.check_interrupt()
            look_at = min(ends_at, clock.now() + coordinator.settings.timing.ttl)
            try:
                record = markers.view().find(step, revision)
                outage = None
            except BackendUnavailable as error:
                record, outage, look_at = None, error, clock.now() + _RETRY_UNAVAILABLE
            if record is not None and record.state in _ENDED:
                return record
            if clock.now() >= ends_at:
                message = f"{step} of {revision} neither done nor failed within {timeout:g} s"
                raise outage or WaitTimeout(message)
            wait.sleep(look_at)
