"""The command ``coordinate``.

Exit codes: the command's own code is passed through; 1 ``doctor`` has findings, 64 usage, 69 store unavailable,
75 lease not acquired in time (``run``; ``-E`` changes it), 76 failure budget spent, 78 configuration, 79 lease lost,
124 any other wait out of time, 126 and 127 cannot execute, 128 + n ended by signal n.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from coordinate import _logs, _plugins
from coordinate.coordinator import connect
from coordinate.errors import AcquireTimeout, CommandFailed, CoordinateError, Interrupted, StepFailed
from coordinate.types import MarkerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.coordinator import Coordinator
    from coordinate.lease import Lease

USAGE = 64
_PRIVATE = ("COORDINATE_URL", "COORDINATE_URL_FILE", "COORDINATE_MARKERS_URL")
log = logging.getLogger("coordinate")


def _connect(**options: str | float | None) -> Coordinator:
    """Connect and let signals end every wait and every guarded command."""
    ttl = options.get("ttl")
    coordinator = connect(
        _text(options.get("url")),
        markers_url=_text(options.get("markers_url")),
        namespace=_text(options.get("namespace")),
        ttl=float(ttl) if ttl is not None else None,
    )
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # What was started with a signal ignored (nohup) goes on ignoring it.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda number, _: coordinator.interrupt(number))
    return coordinator


def _command(context: click.Context) -> list[str]:
    command: list[str] = context.obj["command"]
    if not command:
        message = f"say what to run after --: coordinate {context.info_name} ... -- CMD [ARG ...]"
        raise click.UsageError(message, context)
    return command


def _obtain(lease: Lease, wait_for: float) -> None:
    if wait_for > 0:
        lease.acquire(wait_for)
    elif not lease.try_acquire():
        message = f"lease {lease.name} is held by somebody else"
        raise AcquireTimeout(message)


def _say(line: str) -> None:
    # Nobody reads our output any more: that must not fail the step of a whole fleet.
    with contextlib.suppress(OSError):
        click.echo(line)


def _text(value: str | float | None) -> str | None:
    return None if value is None else str(value)


def child_environment(lease: Lease) -> dict[str, str]:
    """Return our environment without store URLs (they may hold passwords), with the lease's name and token."""
    env = {name: value for name, value in os.environ.items() if name not in _PRIVATE}
    return env | {
        "COORDINATE_HELD": "1",
        "COORDINATE_LEASE": lease.name,
        "COORDINATE_TOKEN": str(lease.token),
    }


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="coordinate-core", prog_name="coordinate")
@click.option("--url", help="Lease store; default COORDINATE_URL.")
@click.option("--markers-url", help="Marker store; default COORDINATE_MARKERS_URL, else the lease store.")
@click.option("--namespace", help="Separates users of one store; default COORDINATE_NAMESPACE.")
@click.option("--ttl", type=float, help="Lease length in seconds; default COORDINATE_TTL, else 30.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.pass_context
def cli(context: click.Context, /, verbose: bool, **options: str | float | None) -> None:  # noqa: FBT001 -- click's way
    """Run work exactly one at a time, or exactly once, over a fleet of processes."""
    _logs.set_up(logging.INFO if verbose else logging.WARNING)
    context.ensure_object(dict)["store"] = options


@cli.command()
@click.argument("name")
@click.option("-n", "--nonblock", is_flag=True, help="Fail at once if somebody else holds the lease.")
@click.option("-w", "--wait", "wait_for", type=float, default=3600.0, show_default=True, help="Longest wait, seconds.")
@click.option("-E", "--conflict-exit-code", "conflict", type=int, default=75, show_default=True)
@click.option("--grace", type=float, default=5.0, show_default=True, help="Seconds between SIGTERM and SIGKILL.")
@click.pass_context
def run(context: click.Context, name: str, *, nonblock: bool, wait_for: float, conflict: int, grace: float) -> None:
    """Hold the lease NAME while a command runs: coordinate run NAME -- CMD [ARG ...]."""
    from coordinate._supervise import Command, exit_code  # noqa: PLC0415 -- other commands need not load it

    argv = _command(context)
    with _connect(**context.obj["store"]) as coordinator:
        lease = coordinator.lease(name)
        try:
            _obtain(lease, 0.0 if nonblock else wait_for)
        except AcquireTimeout as error:
            click.echo(f"coordinate: {error}", err=True)
            sys.exit(conflict)
        with lease:
            env = child_environment(lease)
            command = Command(argv, env, capture=False, grace=grace)
            code = coordinator.supervise(lease, command).run()
    sys.exit(exit_code(code))


@cli.command()
@click.argument("step")
@click.argument("revision")
@click.option("-w", "--wait", "wait_for", type=float, default=3600.0, show_default=True, help="Longest wait, seconds.")
@click.option("--scope", help="What the step acts on; default: the step's name.")
@click.option("--attempts", type=int, default=1, show_default=True, help="Failures after which the fleet gives up.")
@click.option("--backoff", type=float, default=60.0, show_default=True, help="Seconds until a new process may retry.")
@click.pass_context
def once(
    context: click.Context,
    step: str,
    revision: str,
    *,
    wait_for: float,
    scope: str | None,
    attempts: int,
    backoff: float,
) -> None:
    """Run a command once over the fleet for STEP and REVISION; the others wait and get the same exit code."""
    from coordinate import steps  # noqa: PLC0415 -- other commands need not load it

    argv = _command(context)

    def action(work: steps.StepContext) -> None:
        work.run(argv, env=child_environment(work.lease), on_line=_say)

    plan = steps.Plan(scope or step, revision, [steps.Step(step, action)], steps.Budget(attempts, backoff=backoff))
    with _connect(**context.obj["store"]) as coordinator:
        try:
            steps.run(plan, coordinator, timeout=wait_for)
        except StepFailed as error:
            click.echo(f"coordinate: {error}", err=True)
            code = error.record.exit_code if error.record is not None else 0
            sys.exit(code or error.exit_code)


@cli.command()
@click.argument("step")
@click.argument("revision")
@click.option("-w", "--wait", "wait_for", type=float, default=3600.0, show_default=True, help="Longest wait, seconds.")
@click.option("--scope", help="What the step acts on; default: the step's name.")
@click.option("--backoff", type=float, default=60.0, show_default=True, help="Seconds until a new process may retry.")
@click.pass_context
def wait(
    context: click.Context, step: str, revision: str, *, wait_for: float, scope: str | None, backoff: float
) -> None:
    """Wait until STEP of REVISION is done (0) or given up (its recorded code); never runs anything.

    A failure within the fleet's budget is not the end, nor is one that was over for longer than the back-off when
    this wait began: in both cases somebody may try again.
    """
    from coordinate._following import Follower  # noqa: PLC0415 -- other commands need not load it

    with _connect(**context.obj["store"]) as coordinator:
        follower = Follower(coordinator.markers(scope or step), step, revision, backoff)
        record = follower.wait(coordinator, wait_for)
    if record.state is MarkerState.FAILED:
        click.echo(f"coordinate: {step} of {revision} failed\n{record.detail}", err=True)
        sys.exit(record.exit_code or StepFailed.exit_code)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> None:
    """Show who holds what and which steps are where."""
    from coordinate import _report  # noqa: PLC0415 -- other commands need not load it

    with _connect(**context.obj["store"]) as coordinator:
        click.echo(_report.as_json(coordinator) if as_json else _report.as_text(coordinator))


@cli.command()
@click.argument("url", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of lines.")
@click.pass_context
def doctor(context: click.Context, url: str | None, *, as_json: bool) -> None:
    """Name the settings of the stores that break a promise: 0 none, 1 some, 69 a store does not answer.

    URL is a lease store; default: --url, else COORDINATE_URL.
    """
    from coordinate import _doctor  # noqa: PLC0415 -- other commands need not load it

    options = context.obj["store"]
    with _connect(**(options | {"url": url} if url else options)) as coordinator:
        stores = _doctor.examine(coordinator)
    click.echo(_doctor.as_json(stores) if as_json else _doctor.as_text(stores))
    sys.exit(1 if any(store.findings for store in stores) else 0)


@cli.group()
def marker() -> None:
    """List and reset the records of steps."""


@marker.command("list")
@click.argument("scope", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of lines.")
@click.pass_context
def list_markers(context: click.Context, scope: str | None, *, as_json: bool) -> None:
    """List the records of SCOPE, or of all scopes."""
    from coordinate import _report  # noqa: PLC0415 -- other commands need not load it

    with _connect(**context.obj["store"]) as coordinator:
        rows = _report.markers(coordinator, scope)
        click.echo(_report.dump(rows) if as_json else "\n".join(map(_report.marker_line, rows)))


@marker.command("reset")
@click.argument("scope")
@click.argument("step")
@click.argument("revision")
@click.pass_context
def reset_marker(context: click.Context, scope: str, step: str, revision: str) -> None:
    """Forget the record of STEP of REVISION, so that it is tried again with a fresh failure budget."""
    with _connect(**context.obj["store"]) as coordinator:
        found = coordinator.markers(scope).reset(step, revision)
    click.echo(f"{step} of {revision}: {'reset' if found else 'there was no record'}")
    sys.exit(0 if found else 1)


@cli.command()
def backends() -> None:
    """List the stores that this installation knows, and what is wrong with a plugin that cannot be used."""
    for row in dict.fromkeys(_plugins.installed()):
        fault = _plugins.fault(row.scheme) if row.usable and row.origin != "built in" else ""
        state = "broken" if fault else "usable" if row.usable else "missing"
        click.echo(f"{row.scheme:12} {state:8} {row.origin}{f': {fault}' if fault else ''}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the codes of the module's docstring."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    ours, command = arguments[:split], arguments[split + 1 :]
    sys.exit(_guarded(ours, command))


def _guarded(ours: list[str], command: list[str]) -> int:
    try:
        result = cli.main(ours, prog_name="coordinate", standalone_mode=False, obj={"command": command})
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.Abort:
        return 128 + signal.SIGINT
    except Interrupted as stop:
        return 128 + stop.signum
    except CommandFailed as error:
        click.echo(f"coordinate: {error}", err=True)
        return error.code
    except CoordinateError as error:
        click.echo(f"coordinate: {error}", err=True)
        return error.exit_code
    return int(result or 0)
