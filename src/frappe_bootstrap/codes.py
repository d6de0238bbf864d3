"""Exit codes of our own, above those of coordinate; the table is in `frappe_bootstrap.cli`."""

from __future__ import annotations

from typing import NoReturn

from coordinate.errors import StepRefused

EXIT_REFUSED = 81
EXIT_NOT_CREATED = 82
EXIT_UNSETTLED = 83
EXIT_DOWNGRADE = 84
EXIT_CONFLICT = 85
EXIT_UPGRADE = 86
OWN_CODES = frozenset({EXIT_REFUSED, EXIT_NOT_CREATED, EXIT_UNSETTLED, EXIT_DOWNGRADE, EXIT_CONFLICT, EXIT_UPGRADE})


def refuse(reason: str, code: int = EXIT_REFUSED) -> NoReturn:
    """End a step that nobody must go on with: what is wrong is the same for every member."""
    raise StepRefused(reason, code)
