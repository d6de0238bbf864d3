"""The program as the entrypoint of a container: boot, then become COMMAND, run it, or end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from frappe_bootstrap import codes, probes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frappe_bootstrap.reporting import Reporter
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.waiting import Stop


def main(command: Sequence[str]) -> NoReturn:
    """Run the program."""
    # Before anything is imported that costs time: a liveness probe may already ask.
    probes.write(probes.STARTING, os.environ)
    from coordinate.errors import CoordinateError  # noqa: PLC0415
    from frappe_bootstrap import settings  # noqa: PLC0415
    from frappe_bootstrap.boot import boot  # noqa: PLC0415
    from frappe_bootstrap.reporting import Redactor, Reporter  # noqa: PLC0415
    from frappe_bootstrap.waiting import Stop, listen  # noqa: PLC0415

    stop = Stop()
    reporter = Reporter(Redactor(()))
    listen(stop)
    try:
        chosen = settings.load(os.environ)
        reporter = Reporter(Redactor(chosen.secrets), chosen.site, chosen.revision)
        seen = boot(chosen, stop, reporter)
        stop.check()
    except CoordinateError as error:
        reporter.line(str(error), level="ERROR")
        _leave(reporter, codes.exit_code(error))
    except OSError as error:
        reporter.line(f"{type(error).__name__}: {error}", level="ERROR")
        _leave(reporter, codes.EXIT_INTERNAL)
    if chosen.operation.role == "once" or not command:
        sys.exit(0)
    _start(command, chosen, reporter, stop, seen)


def _start(command: Sequence[str], chosen: Settings, reporter: Reporter, stop: Stop, seen: dict[str, int]) -> NoReturn:
    from frappe_bootstrap import assets_cache, handover, supervise  # noqa: PLC0415 -- as above

    if assets_cache.drop_foreign(chosen.redis.cache, chosen.sites):
        reporter.line("the map of assets that another image had cached is dropped")
    if not probes.write(probes.SERVING, os.environ, revision=chosen.revision):
        reporter.line("the probe `ready` will say no: no folder for its file (BOOTSTRAP_STATE_DIR)", level="WARNING")
    if chosen.operation.mode == "supervise":
        supervise.Supervision(command, chosen, reporter, seen).run(stop)
    handover.hand_over(command, reporter, stop)


def _leave(reporter: Reporter, code: int) -> NoReturn:
    """End with one last line that says with which code, and what that means."""
    reporter.line(f"exit code {code}: {codes.meaning(code)}", level="ERROR")
    sys.exit(code)
