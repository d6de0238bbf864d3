"""What a container shows of its boot: in the waiting room, and to probes over HTTP while it serves."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from coordinate.errors import CoordinateError
from coordinate.types import MarkerState
from frappe_bootstrap import probes, status
from frappe_bootstrap.room import Room
from frappe_bootstrap.room_page import SiteRow, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate import Coordinator
    from coordinate.steps import Event
    from frappe_bootstrap.settings import Settings

_BOOTING = ("starting", "waiting", "leading", "failed")
_BECOMES = {"leading": "leading", "begin": "leading", "takeover": "leading", "waiting": "waiting", "lost": "waiting"}


class Front:
    """Follows a boot and shows it.

    Args:
        chosen: the settings.
        coordinator: markers of all sites.
        names: the steps.
    """

    def __init__(self, chosen: Settings, coordinator: Coordinator, names: tuple[str, ...]) -> None:
        self._chosen = chosen
        self._coordinator = coordinator
        self._names = names
        self._markers = {name: coordinator.markers(f"frappe/{name}") for name in chosen.names}
        self._rows: dict[str, SiteRow] = {}
        self._started = time.monotonic()
        self.state = "starting"
        self.message = ""

    def room(self, log: Callable[[str], object]) -> Room:
        """Open the waiting room on the ports of the settings."""
        operation = self._chosen.operation
        return Room(operation.waiting_room_port, operation.health_port, self.look, log)

    def health(self, log: Callable[[str], object]) -> Room:
        """Open the health port only: the web port is the command's."""
        return Room(0, self._chosen.operation.health_port, self.look, log)

    def say(self, text: str) -> None:
        """Show what is waited for."""
        self.message = text

    def fail(self, reason: str) -> None:
        """Show that this container gives up, and why."""
        self.state, self.message = "failed", reason

    def event(self, event: Event) -> None:
        """Follow the plan."""
        self.message = ""
        self.state = _BECOMES.get(event.kind, self.state)

    def look(self) -> Snapshot:
        """Return what is to be shown now; a store that does not answer leaves what was seen last."""
        state, message = self.state, self.message
        if state not in _BOOTING:
            said = probes.read(os.environ)
            state, message = str(said.get("state", "stopping")), str(said.get("reason", ""))
        for name, markers in self._markers.items():
            try:
                view = markers.view()
            except CoordinateError as error:
                message = message or f"the records cannot be read: {type(error).__name__}"
                continue
            steps = status.steps_of(view, self._names, self._chosen.revision, self._coordinator.clock.wall())
            running = [step.owner for step in steps if step.state == MarkerState.IN_PROGRESS.value]
            self._rows[name] = SiteRow(name, running[0] if running else "", steps)
        return Snapshot(
            state=state,
            revision=self._chosen.revision,
            host=self._coordinator.settings.holder or os.uname().nodename,
            elapsed=time.monotonic() - self._started,
            message=message,
            sites=tuple(self._rows[name] for name in self._chosen.names if name in self._rows),
        )
