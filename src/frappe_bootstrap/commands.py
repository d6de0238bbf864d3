"""The subcommands of an operator: what is, what would be, and giving the volume back."""

from __future__ import annotations

import datetime as dt
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from coordinate import connect
from coordinate.errors import ConfigError, Contended, CoordinateError
from coordinate.steps import Budget, Plan, Step, run
from coordinate.types import MarkerState
from frappe_bootstrap import codes, owning, plan, repair, settings, status, steps, volume
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.maintenance import Maintenance
from frappe_bootstrap.reporting import Redactor
from frappe_bootstrap.steps.mirrors import SHARED_SCOPE
from frappe_bootstrap.waiting import Stop, listen
from frappe_bootstrap.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate import Coordinator, Lease, Markers
    from frappe_bootstrap.settings import Settings


USAGE = {
    "status": "status [--json]",
    "plan": "plan",
    "repair": "repair [--maintenance] SITE",
    "adopt": "adopt SITE",
    "retry": "retry [--done] SITE",
    "release-volume": "release-volume",
}


_FLAGS = {"repair": "--maintenance", "adopt": "", "retry": "--done"}
"""Of the commands that are about one site."""


def _understood(command: str, words: Sequence[str]) -> bool:
    if command in _FLAGS:
        names = [word for word in words if word != _FLAGS[command]]
        return len(names) == 1 and not names[0].startswith("-")
    return not set(words) - ({"--json"} if command == "status" else set())


def main(command: str, words: Sequence[str]) -> int:
    """Run a subcommand and return its exit code."""
    if not _understood(command, words):
        sys.stderr.write(f"usage: frappe-bootstrap {USAGE[command]}\n")
        return codes.EXIT_USAGE
    stop = Stop()
    listen(stop)
    redact = Redactor(())
    try:
        chosen = settings.load(os.environ)
        redact = Redactor(chosen.secrets)
        with connect(chosen.lease_url, markers_url=_markers_url(chosen), ttl=chosen.ttl) as coordinator:
            text = _ACTIONS[command](_works(chosen, stop), coordinator, words)
    except CoordinateError as error:
        sys.stderr.write(redact(f"{error}\n"))
        return codes.exit_code(error)
    except OSError as error:
        sys.stderr.write(redact(f"{type(error).__name__}: {error}\n"))
        return codes.EXIT_INTERNAL
    sys.stdout.write(redact(f"{text}\n"))
    return 0


def _markers_url(chosen: Settings) -> str:
    """Return where the records are: nowhere, if that would be a folder which asking alone would create."""
    parts = urlsplit(chosen.markers_url)
    absent = parts.scheme == "file" and not Path(unquote(parts.path)).exists()
    return "memory://" if absent else chosen.markers_url


def _log(step: str, text: str) -> None:
    sys.stderr.write(f"{step}: {text}\n")


def _works(chosen: Settings, stop: Stop) -> list[Work]:
    several = [chosen.of(name) for name in chosen.names]
    return [Work(own, Bench(own, stop, os.environ), _log) for own in several]


def _status(works: list[Work], coordinator: Coordinator, words: Sequence[str]) -> str:
    found = [status.of_site(work, coordinator, tuple(step.name for step in steps.plan(work).steps)) for work in works]
    if "--json" in words:
        return msgspec.json.encode(found).decode()
    return "\n".join(map(status.as_text, found))


def _plan(works: list[Work], coordinator: Coordinator, _: Sequence[str]) -> str:
    texts = []
    for work in works:
        forecasts = list(plan.of_site(work, work.bench.state(root=True), coordinator.markers(work.scope).view()))
        texts.append(plan.as_text(work.settings.site, work.settings.revision, forecasts))
    return "\n".join(texts)


def _one(works: list[Work], words: Sequence[str]) -> Work:
    found = [work for work in works if work.settings.site in words]
    if not found:
        message = f"{words[-1]!r} is not among the sites of this container (SITE, SITES)"
        raise ConfigError(message)
    return found[0]


def _adopt(works: list[Work], coordinator: Coordinator, words: Sequence[str]) -> str:
    work = _one(works, words)
    repair.adopt(work, coordinator)
    return f"site {work.settings.site} carries our record now"


def _repair(works: list[Work], coordinator: Coordinator, words: Sequence[str]) -> str:
    work = _one(works, words)
    if "--maintenance" in words:
        return _open(work, coordinator)
    repair.repair(work, coordinator)
    return f"site {work.settings.site} is {work.bench.state()}"


def _open(work: Work, coordinator: Coordinator) -> str:
    """Restore a site's maintenance flags, fenced and recorded like every other change of a site."""
    maintenance = Maintenance(work)
    if maintenance.journal() is None:
        return f"site {work.settings.site} is not in maintenance of ours; nothing to restore"
    revision = f"repair {dt.datetime.now(dt.UTC).isoformat(timespec='seconds')}"
    step = Step("repair", maintenance.restore, timeout=work.settings.step_timeout)
    whole, limit = Plan(work.scope, revision, [step], Budget(failures=1)), work.settings.wait_timeout
    run(whole, coordinator, timeout=limit, floor=owning.floor(work))
    return f"site {work.settings.site}: maintenance and scheduler are as they were before the upgrade"


def _retry(works: list[Work], coordinator: Coordinator, words: Sequence[str]) -> str:
    """Clear what the fleet has given up at this revision; what unsuccessful attempts have noted stays.

    Nobody may lead meanwhile: what was begun since our look would be cleared, or recorded on top of what we clear.
    """
    work = _one(works, words)
    states = {MarkerState.FAILED, MarkerState.DONE} if "--done" in words else {MarkerState.FAILED}
    with ExitStack() as stack:
        leases = [(scope, stack.enter_context(_free(work, coordinator, scope))) for scope in (work.scope, SHARED_SCOPE)]
        cleared = [step for scope, lease in leases for step in _clear(work, coordinator.markers(scope), lease, states)]
    what = ", ".join(cleared) or "nothing, no step was given up"
    return f"site {work.settings.site}, revision {work.settings.revision}: cleared {what}"


def _free(work: Work, coordinator: Coordinator, scope: str) -> Lease:
    """Return the lease, if it is to be had at once.

    Raises:
        Contended: somebody is at work, it says who; or the store lets nobody in yet.
    """
    try:
        return owning.own(work, coordinator, work.settings.wait_timeout, scope=scope, blocking=False)
    except Contended as contended:
        # A quarantined store, or one whose last holder is dead for less than its ttl, knows of nobody.
        why = "the lease is not to be had now" if contended.holder is None else "somebody is at work"
        message = f"{why}, so nothing was cleared; try again when that has ended: {contended}"
        raise Contended(message, contended.holder) from contended


def _clear(work: Work, markers: Markers, lease: Lease, states: set[MarkerState]) -> list[str]:
    """Reset the steps of this revision that are in one of these states; return their names."""
    cleared = []
    for record in markers.view().records:
        if record.revision == work.settings.revision and record.state in states:
            lease.check()
            if markers.reset(record.step, record.revision):
                cleared.append(record.step)
    return cleared


def _release(works: list[Work], coordinator: Coordinator, _: Sequence[str]) -> str:
    """Nobody may lead meanwhile: the next leader of ours would link the assets again."""
    chosen = works[0].settings
    with ExitStack() as stack:
        leases = []
        for work, scope in (*((work, work.scope) for work in works), (works[0], SHARED_SCOPE)):
            lease = owning.own(work, coordinator, chosen.wait_timeout, scope=scope)
            leases.append(stack.enter_context(lease))

        def check() -> None:
            """All of them are still held."""
            for lease in leases:
                lease.check()

        return volume.release(chosen.sites, check)


_ACTIONS = {
    "status": _status,
    "plan": _plan,
    "repair": _repair,
    "adopt": _adopt,
    "retry": _retry,
    "release-volume": _release,
}
