"""The watcher of a supervised container: says on its standard output when a newer revision has begun its work.

    python -m frappe_bootstrap.watch SCOPE=TOKEN...

Newer is what a leader has begun after this container's boot, under a token above the one that it saw then, for another
revision: from the beginning of its migration on, until the record is cleared. What was refused has changed nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.errors import BackendUnavailable
from coordinate.types import Verdict
from frappe_bootstrap import assets_cache, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordinate import Coordinator
    from coordinate.types import MarkerRecord

_LOOK_EVERY = 5.0
_CACHE_EVERY = 30.0
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
    ]
    return max(found, key=lambda record: record.token).revision if found else ""


def main() -> None:
    """Watch until nobody listens any more."""
    seen = {scope: int(token) for scope, _, token in (word.rpartition("=") for word in sys.argv[1:])}
    chosen = settings.load(os.environ)
    with connect(chosen.lease_url, markers_url=chosen.markers_url, ttl=chosen.ttl) as coordinator:
        _watch(coordinator, chosen, seen)


def _watch(coordinator: Coordinator, chosen: settings.Settings, seen: Mapping[str, int]) -> None:
    scopes = {coordinator.markers(scope): token for scope, token in seen.items()}
    backends = {coordinator.backend, coordinator.marker_backend}
    said, check_cache_at = "", 0.0
    while True:
        with coordinator.hub.wait(*((backend, markers.topic) for backend in backends for markers in scopes)) as wait:
            try:
                found = [newer(markers.view().records, chosen.revision, token) for markers, token in scopes.items()]
            except BackendUnavailable:
                # Says nothing about revisions; whoever is at work there cannot record anything either.
                found = [said]
            revision = next(filter(None, found), "")
            # Also without a change: a line that nobody reads ends this process.
            sys.stdout.write(f"newer {revision}\n" if revision else "none\n")
            sys.stdout.flush()
            said, now = revision, coordinator.clock.now()
            if not revision and now >= check_cache_at:
                check_cache_at = now + _CACHE_EVERY
                assets_cache.drop_foreign(chosen.redis.cache, chosen.sites)
            wait.sleep(now + _LOOK_EVERY)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(0)
