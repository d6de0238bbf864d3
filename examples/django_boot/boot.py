"""Start a container of a Django project: one of all replicas migrates, the others wait, then each serves.

usage: REVISION=v42 python boot.py COMMAND...
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.errors import CoordinateError, Interrupted
from coordinate.steps import Event, Plan, Step, run

if TYPE_CHECKING:
    from coordinate.steps import StepContext

MANAGE = (sys.executable, str(Path(__file__).parent / "manage.py"))


def migrate(context: StepContext) -> None:
    """Run under the lease: if that is lost, the command is killed before anybody else can begin."""
    context.run([*MANAGE, "migrate", "--noinput"], name="migrate")


def unapplied() -> str | None:
    """Return what is wrong with the database after all: a code of 0 alone proves nothing."""
    checked = subprocess.run([*MANAGE, "migrate", "--check"], capture_output=True, text=True, check=False)
    return None if checked.returncode == 0 else checked.stdout[-500:] or "there are unapplied migrations"


def tell(event: Event) -> None:
    """Say what happens."""
    print(event.kind, event.step, event.text, flush=True)


def main() -> None:
    """Migrate, or wait; then become the command."""
    plan = Plan("django/shop", os.environ["REVISION"], [Step("migrate", migrate, verify=unapplied)])
    with connect() as coordinator:
        signal.signal(signal.SIGTERM, lambda number, _: coordinator.interrupt(number))
        try:
            run(plan, coordinator, timeout=3600, observer=tell)
        except Interrupted as stop:
            sys.exit(128 + stop.signum)
        except CoordinateError as error:
            print(error, file=sys.stderr)
            sys.exit(error.exit_code)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 -- the command of the container


if __name__ == "__main__":
    main()
