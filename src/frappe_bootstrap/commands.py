"""The subcommands of an operator: what is, what would be, and giving the volume back."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from coordinate import connect
from coordinate.errors import CoordinateError
from frappe_bootstrap import codes, plan, settings, status, steps, volume
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.reporting import Redactor
from frappe_bootstrap.steps.mirrors import SHARED_SCOPE
from frappe_bootstrap.waiting import Stop, listen
from frappe_bootstrap.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate import Coordinator
    from frappe_bootstrap.settings import Settings


def main(command: str, words: Sequence[str]) -> int:
    """Run a subcommand and return its exit code."""
    options = {"status": {"--json"}}.get(command, set())
    if set(words) - options:
        sys.stderr.write(f"usage: frappe-bootstrap {' '.join([command, *(f'[{word}]' for word in options)])}\n")
        return codes.EXIT_USAGE
    stop = Stop()
    listen(stop)
    redact = Redactor(())
    try:
        chosen = settings.load(os.environ)
        redact = Redactor(chosen.secrets)
        with connect(chosen.lease_url, markers_url=_markers_url(chosen), ttl=chosen.ttl) as coordinator:
            run = {"status": _status, "plan": _plan, "release-volume": _release}[command]
            text = run(_works(chosen, stop), coordinator, words)
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


def _release(works: list[Work], coordinator: Coordinator, _: Sequence[str]) -> str:
    """Nobody may lead meanwhile: the next leader of ours would link the assets again."""
    chosen = works[0].settings
    with ExitStack() as stack:
        leases = []
        for scope in (*(work.scope for work in works), SHARED_SCOPE):
            lease = coordinator.lease(scope)
            lease.acquire(chosen.wait_timeout)
            leases.append(stack.enter_context(lease))

        def check() -> None:
            """All of them are still held."""
            for lease in leases:
                lease.check()

        return volume.release(chosen.sites, check)
