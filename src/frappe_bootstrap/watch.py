"""The watcher of a supervised container: says on its standard output when a newer revision has begun its work.

    python -m frappe_bootstrap.watch SCOPE=TOKEN...

Newer is what a leader has begun after this container's boot, under a token above the one that it saw then, for another
revision: from the instant on at which it closes the site, or begins to change it, until the record is cleared. What was
refused has changed nothing, and neither has an attempt in its hook, or one that ended before its first effect and left
the site open.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.errors import BackendUnavailable
from coordinate.types import MarkerState, Verdict
from frappe_bootstrap import assets_cache, settings
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.front import Front
from frappe_bootstrap.maintenance import CHANGED
from frappe_bootstrap.operation import STEPS
from frappe_bootstrap.waiting import Stop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordinate import Coordinator
    from coordinate.types import MarkerRecord
    from frappe_bootstrap.record import SiteRecord

_LOOK_EVERY = 5.0
_CACHE_EVERY = 30.0
_DATABASE_EVERY = 60.0
_EFFECTS = ("migrate", "apps")
"""The steps that change a database; a newer revision that has only written a config file has changed nothing."""


def newer(records: tuple[MarkerRecord, ...], revision: str, token: int) -> str:
    """Return the newer revision that is at work or has been, or nothing."""
    found = [
        record
        for record in records
        if record.revision != revision
        and record.token > token
        and record.step in _EFFECTS
        and record.verdict is not Verdict.REFUSED
        and _has_begun(record)
    ]
    return max(found, key=lambda record: record.token).revision if found else ""


def _has_begun(record: MarkerRecord) -> bool:
    """Return whether an attempt, or an earlier one, has closed or may have changed the site; noted before it does."""
    return record.state is MarkerState.DONE or bool(record.notes.get(CHANGED) or record.notes.get("maintenance"))


def newer_in_database(record: SiteRecord, revision: str, token: int) -> str:
    """Return the same as the database tells it: also of a leader whose records are in another store than ours."""
    found = [row for row in (record.migrating, record.revision) if row is not None and row.revision != revision]
    return next((row.revision for row in found if row.token > token), "")


def main() -> None:
    """Watch until nobody listens any more."""
    seen = {scope: int(token) for scope, _, token in (word.rpartition("=") for word in sys.argv[1:])}
    chosen = settings.load(os.environ)
    with connect(chosen.lease_url, markers_url=chosen.markers_url, ttl=chosen.ttl) as coordinator:
        front = Front(chosen, coordinator, STEPS)
        front.state = "serving"
        with front.health(lambda text: sys.stderr.write(f"{text}\n")):
            Watcher(coordinator, chosen, seen).run()


class Watcher:
    """Looks at the records of every site, and less often at the databases and the cached map of assets.

    Args:
        coordinator: markers.
        chosen: the settings.
        seen: by scope, the newest leader's token at the end of the boot.
    """

    def __init__(self, coordinator: Coordinator, chosen: settings.Settings, seen: Mapping[str, int]) -> None:
        self._coordinator = coordinator
        self._chosen = chosen
        self._markers = {coordinator.markers(scope): token for scope, token in seen.items()}
        several, stop = [chosen.of(name) for name in chosen.names], Stop()
        self._benches = {
            Bench(own, stop, os.environ): seen[f"frappe/{own.site}"] for own in several if f"frappe/{own.site}" in seen
        }
        self._said = self._in_database = ""
        self._database_at = self._cache_at = 0.0

    def run(self) -> None:
        """Watch until nobody listens."""
        clock, hub = self._coordinator.clock, self._coordinator.hub
        backends = {self._coordinator.backend, self._coordinator.marker_backend}
        topics = [(backend, markers.topic) for backend in backends for markers in self._markers]
        while True:
            with hub.wait(*topics) as wait:
                self._said = self._look()
                # Also without a change: a line that nobody reads ends this process.
                sys.stdout.write(f"newer {self._said}\n" if self._said else "none\n")
                sys.stdout.flush()
                if not self._said and clock.now() >= self._cache_at:
                    self._cache_at = clock.now() + _CACHE_EVERY
                    assets_cache.drop_foreign(self._chosen.redis.cache, self._chosen.sites)
                wait.sleep(clock.now() + _LOOK_EVERY)

    def _look(self) -> str:
        """Return the newer revision; a store or database that does not answer says nothing about revisions."""
        revision, now = self._chosen.revision, self._coordinator.clock.now()
        try:
            found = [newer(markers.view().records, revision, token) for markers, token in self._markers.items()]
        except BackendUnavailable:
            found = [self._said]
        if now >= self._database_at:
            self._database_at = now + _DATABASE_EVERY
            with contextlib.suppress(BackendUnavailable):
                told = [
                    newer_in_database(bench.state().record, revision, token) for bench, token in self._benches.items()
                ]
                self._in_database = next(filter(None, told), "")
        return next(filter(None, found), self._in_database)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(0)
