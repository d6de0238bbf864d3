"""Waiting for somebody else's step, without ever leading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.errors import BackendUnavailable, WaitTimeout
from coordinate.types import MarkerState, Verdict

if TYPE_CHECKING:
    from coordinate.backend import Watch
    from coordinate.coordinator import Coordinator
    from coordinate.marker import Markers
    from coordinate.types import MarkerRecord

_RETRY_UNAVAILABLE = 0.25


class Follower:
    """Looks at one step until it is done or given up.

    Args:
        markers: of the step's scope.
        step: its name.
        revision: what it is to bring about.
        backoff: seconds; as for a member of the fleet, a failure that was over for longer than this when we started
            is not the end: whoever starts now may try once more.
        recheck: the same, after a refusal.
    """

    def __init__(
        self, markers: Markers, step: str, revision: str, backoff: float = 60.0, *, recheck: float = 60.0
    ) -> None:
        self.markers = markers
        self._step = step
        self._revision = revision
        self._after = {Verdict.SPENT: backoff, Verdict.REFUSED: recheck}

    def wait(self, coordinator: Coordinator, timeout: float) -> MarkerRecord:
        """Return the record once the step is done, or failed so that none of those that run now tries it again.

        Raises:
            WaitTimeout: neither within ``timeout`` seconds.
            BackendUnavailable: no usable answer at the end of the wait.
            Interrupted: a signal asked this process to stop.
        """
        clock = coordinator.clock
        born, ends_at = clock.wall(), clock.now() + timeout
        backends = {coordinator.backend, coordinator.marker_backend}
        with coordinator.hub.wait(*((backend, self.markers.topic) for backend in backends)) as wait:
            told: MarkerRecord | None = None
            while True:
                coordinator.hub.check_interrupt()
                look_at = min(ends_at, clock.now() + coordinator.settings.timing.ttl)
                channel = coordinator.hub.channel(self.markers.backend)
                # Before looking: what is told afterwards is newer than what we see.
                number = channel.news(self.markers.topic).number if channel is not None else 0
                record, outage = (told, None) if told is not None else self._look()
                if outage is not None:
                    look_at = clock.now() + _RETRY_UNAVAILABLE
                if record is not None and self._is_over(record, born):
                    return record
                if clock.now() >= ends_at:
                    raise outage or self._out_of_time(record, timeout)
                wait.sleep(look_at)
                told = self._told(channel, number)

    def _told(self, channel: Watch | None, number: int) -> MarkerRecord | None:
        """Return our step's record if the store has told it since, with the change that woke us."""
        news = channel.news(self.markers.topic) if channel is not None else None
        if news is None or news.number <= number or news.record is None:
            return None
        ours = (news.record.step, news.record.revision) == (self._step, self._revision)
        return news.record if ours else None

    def _look(self) -> tuple[MarkerRecord | None, BackendUnavailable | None]:
        try:
            return self.markers.view().find(self._step, self._revision), None
        except BackendUnavailable as error:
            return None, error

    def _is_over(self, record: MarkerRecord, born: float) -> bool:
        """Return whether there is nothing left to wait for.

        How many failures the fleet allows is not known here; whoever recorded the last one knew, and wrote it down.
        """
        if record.state is not MarkerState.FAILED:
            return record.state is MarkerState.DONE
        after = self._after.get(record.verdict)
        return after is not None and born <= record.finished + after

    def _out_of_time(self, record: MarkerRecord | None, timeout: float) -> WaitTimeout:
        message = f"{self._step} of {self._revision} neither done nor given up within {timeout:g} s"
        if record is not None and record.state is MarkerState.FAILED:
            message += f"; the last attempt failed with code {record.exit_code}:\n{record.detail}"
        return WaitTimeout(message)
