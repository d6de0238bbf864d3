"""``frappe-bootstrap [--] COMMAND...``: bring the site to this image's revision, once for all replicas.

Then COMMAND replaces this process; it gets the environment without the secrets that were meant for us. Without COMMAND
the program ends when the revision is ready. All settings come from the environment, see `frappe_bootstrap.settings`.

=========  ==========================================================================================
0          ready, no COMMAND was given (otherwise: what COMMAND returns)
64         usage
69         a server was not available within WAIT_TIMEOUT; the reasons are in the log
70         an error of ours
75         the lease for a change of the configuration was not to be had in time
76         a step failed, or took longer than STEP_TIMEOUT, as often as the fleet tries; its last lines of
           output are in the log
78         settings: every bad or missing variable, or a folder that cannot be written, is in the log
79         the lease was lost and not regained
81         refused: the site is half-made, unreachable, or its database exists without its folder; one attempt,
           and the whole fleet ends. Or only this replica cannot create it (no or wrong DB_ROOT_PASS, no ADMIN_PASS)
           and no other one was at work for WAIT_TIMEOUT; or its APPS names what the image does not have
82         there is no site and SKIP_INIT=1 forbids this replica to create it; the others are not concerned
83         what an earlier attempt left running (a lock, a database session) does not end
124        not ready within BOOT_TIMEOUT although somebody leads
126, 127   COMMAND cannot be executed, was not found
128 + n    stopped by signal n
=========  ==========================================================================================
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from coordinate import connect
from coordinate.errors import CoordinateError, Interrupted, StepFailed
from coordinate.steps import Outcome, run
from frappe_bootstrap import image, settings, site_steps
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.inspection import Kind
from frappe_bootstrap.reporting import Redactor, Reporter
from frappe_bootstrap.waiting import Stop, bear_outages, check_container, wait_for_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate import Coordinator

_USAGE = 64
_INTERNAL = 70
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_OWN_CODES = frozenset({site_steps.EXIT_REFUSED, site_steps.EXIT_NOT_CREATED, site_steps.EXIT_UNSETTLED})


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program."""
    command = list(sys.argv[1:] if argv is None else argv)
    if command[:1] == ["--"]:
        command = command[1:]
    elif command[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{__doc__}\n{settings.__doc__}")
        sys.exit(0)
    elif command and command[0].startswith("-"):
        sys.stderr.write("usage: frappe-bootstrap [--] COMMAND...\n")
        sys.exit(_USAGE)
    stop = Stop()
    reporter = Reporter(Redactor(()))
    _listen(stop, None)
    try:
        chosen = settings.load(os.environ)
        reporter = Reporter(Redactor(chosen.secrets), chosen.site, chosen.revision)
        boot(chosen, stop, reporter)
        stop.check()
    except CoordinateError as error:
        reporter.line(str(error), level="ERROR")
        sys.exit(exit_code(error))
    except OSError as error:
        reporter.line(f"{type(error).__name__}: {error}", level="ERROR")
        sys.exit(_INTERNAL)
    if command:
        hand_over(command, reporter, stop)
    sys.exit(0)


def exit_code(error: CoordinateError) -> int:
    """Return the exit code of an error; the code of a refused step is known to the whole fleet by its record."""
    if isinstance(error, Interrupted):
        return 128 + error.signum
    if isinstance(error, StepFailed) and error.record is not None and error.record.exit_code in _OWN_CODES:
        return error.record.exit_code
    return error.exit_code


def boot(chosen: settings.Settings, stop: Stop, reporter: Reporter) -> None:
    """Return when the revision is ready.

    Raises:
        CoordinateError: it is not; `exit_code` says which code that is.
    """
    started = time.monotonic()
    for notice in chosen.notices:
        reporter.line(notice, level="WARNING")
    check_container(chosen)
    stop.sleep(chosen.initial_delay)
    bench = Bench(chosen, stop, os.environ)
    with connect(chosen.lease_url, markers_url=chosen.markers_url, ttl=chosen.ttl) as coordinator:
        _listen(stop, coordinator)
        wait_for_servers(chosen, bench, coordinator, stop, reporter.line)
        site = site_steps.Site(chosen, bench, reporter.output)
        plan = site.plan()._replace(redact=reporter.redact)
        outcome = run(plan, coordinator, timeout=chosen.boot_timeout, observer=reporter.event)
        if outcome is not Outcome.RAN:
            site.refresh_config(coordinator, chosen.boot_timeout)
            check_truth(chosen, bench, reporter, stop)
            site.restore_mirrors(coordinator)
        reporter.line(f"ready ({outcome.value})", elapsed=time.monotonic() - started)
    _listen(stop, None)
    if image.unresolved_assets(chosen.sites):
        reporter.line("some names in assets/assets.json have no file in this container", level="WARNING")


def check_truth(chosen: settings.Settings, bench: Bench, reporter: Reporter, stop: Stop) -> None:
    """Do not believe a record alone: the database has to say so, too.

    Raises:
        StepRefused: the record says done, the database does not.
        BackendUnavailable: no look succeeded within WAIT_TIMEOUT; that says nothing about the site.
        Interrupted: asked to stop.
    """
    state = bear_outages(bench.state, chosen.wait_timeout, stop, reporter.line)
    if state.kind is not Kind.HEALTHY:
        reason = (
            f"revision {chosen.revision} of site {chosen.site} is recorded as done, but the site is {state}; was a "
            "volume or a database replaced? Restore it, or clear the record (coordinate marker reset)"
        )
        site_steps.refuse(reason)
    missing = [app for app in chosen.wanted_apps(image.apps(chosen.bench)) if app not in state.apps]
    if missing:
        names = ", ".join(missing)
        text = f"not installed although this revision is recorded as done: {names}; give IMAGE_REV a new value"
        reporter.line(text, level="WARNING")


def hand_over(command: Sequence[str], reporter: Reporter, stop: Stop) -> NoReturn:
    """Become the command, with its environment and signals as it expects them."""
    environ = settings.child_environment(os.environ)
    reporter.line(f"starting {command[0]}")
    _reap()
    # A signal that comes from here on is the command's; one that came before still ends us.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    if stop.signum:
        sys.exit(128 + stop.signum)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        os.execvpe(command[0], list(command), environ)  # noqa: S606 -- becoming the command is the point
    except FileNotFoundError:
        reporter.line(f"{command[0]}: not found", level="ERROR")
        sys.exit(_NOT_FOUND)
    except OSError as error:
        reporter.line(f"{command[0]}: {error.strerror}", level="ERROR")
        sys.exit(_NOT_EXECUTABLE)


def _listen(stop: Stop, coordinator: Coordinator | None) -> None:
    """React to TERM and INT, also as process 1, where there is no default reaction."""

    def ask_to_stop(signum: int, _frame: object) -> None:
        """End waits of ours, and of the coordinator's if there is one."""
        stop.set(signum)
        if coordinator is not None:
            coordinator.interrupt(signum)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)


def _reap() -> None:
    """Take leave of processes that came to us as process 1; none of our own is left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
