"""Exit codes: what each means, in one table that ``--help`` and docs/reference/exit-codes.md repeat.

Imports nothing at the start: probes need the table, and no more than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from coordinate.errors import CoordinateError

EXIT_NO = 1
EXIT_USAGE = 64
EXIT_INTERNAL = 70
EXIT_REFUSED = 81
EXIT_NOT_CREATED = 82
EXIT_UNSETTLED = 83
EXIT_DOWNGRADE = 84
EXIT_CONFLICT = 85
EXIT_UPGRADE = 86
EXIT_SUPERSEDED = 87
OWN_CODES = frozenset({EXIT_REFUSED, EXIT_NOT_CREATED, EXIT_UNSETTLED, EXIT_DOWNGRADE, EXIT_CONFLICT, EXIT_UPGRADE})
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

MEANINGS = {
    "0": "ready and no COMMAND was given, or BOOTSTRAP_ROLE=once; otherwise what COMMAND returns",
    "1": "`live` or `ready`: no",
    "64": "usage",
    "69": "a server was not available within WAIT_TIMEOUT; the reasons are in the log",
    "70": "an error of ours",
    "75": "the lease for a change of the configuration or the volume was not to be had in time, or `retry` "
    "has found somebody at work",
    "76": "a step failed, or took longer than its timeout, as often as the fleet tries; its last lines are in the log",
    "78": "settings: every bad or missing variable, unusable folder or file of the volume is in the log",
    "79": "the lease was lost and not regained",
    "81": "refused: a half-made or unreachable site, a database without its folder, a wrong list of apps; "
    "nothing was changed, and what to do is in the log",
    "82": "there is no site and SKIP_INIT=1 forbids this replica to create it; the others are not concerned",
    "83": "what an earlier attempt left running (a lock, a database session) does not end",
    "84": "downgrade refused: the database is at a newer revision, on the way to one, or was at this one before",
    "85": "refused: the same IMAGE_REV was brought about by an image with another schema",
    "86": "refused by UPGRADE_MODE=refuse: the site would have to be migrated",
    "87": "ON_UPGRADE=stop: COMMAND was stopped because a newer revision has begun its work",
    "124": "not ready within BOOT_TIMEOUT although somebody leads",
    "126": "COMMAND cannot be executed",
    "127": "COMMAND was not found",
    "128 + n": "stopped by signal n",
}


def refuse(reason: str, code: int = EXIT_REFUSED) -> NoReturn:
    """End a step that nobody must go on with: what is wrong is the same for every member."""
    from coordinate.errors import StepRefused  # noqa: PLC0415 -- see above

    raise StepRefused(reason, code)


def exit_code(error: CoordinateError) -> int:
    """Return the exit code of an error; the code of a refused step is known to the whole fleet by its record."""
    from coordinate.errors import Interrupted, StepFailed  # noqa: PLC0415 -- see above

    if isinstance(error, Interrupted):
        return 128 + error.signum
    if isinstance(error, StepFailed) and error.record is not None and error.record.exit_code in OWN_CODES:
        return error.record.exit_code
    return error.exit_code


def table() -> str:
    """Return the table for people."""
    return "\n".join(f"  {code:8} {meaning}" for code, meaning in MEANINGS.items())


def meaning(code: int) -> str:
    """Return what a code says; a code above 128 that is not in the table is a signal's."""
    return MEANINGS.get(str(code)) or (f"stopped by signal {code - 128}" if code > 128 else "")  # noqa: PLR2004
