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
84         the database is ahead of this image, or cannot be compared with it (ALLOW_DOWNGRADE)
85         IMAGE_REV was used for another schema, and REVISION_REUSE=refuse
86         the site would have to be migrated, and UPGRADE_MODE=refuse
124        not ready within BOOT_TIMEOUT although somebody leads
126, 127   COMMAND cannot be executed, was not found
128 + n    stopped by signal n
=========  ==========================================================================================
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from coordinate.errors import CoordinateError, Interrupted, StepFailed
from frappe_bootstrap import settings
from frappe_bootstrap.boot import boot
from frappe_bootstrap.codes import OWN_CODES
from frappe_bootstrap.handover import hand_over
from frappe_bootstrap.reporting import Redactor, Reporter
from frappe_bootstrap.waiting import Stop, listen

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = 64
_INTERNAL = 70


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
    listen(stop, None)
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
    if isinstance(error, StepFailed) and error.record is not None and error.record.exit_code in OWN_CODES:
        return error.record.exit_code
    return error.exit_code


if __name__ == "__main__":
    main()
