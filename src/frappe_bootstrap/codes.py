"""Exit codes of our own, above those of coordinate; the table is in `frappe_bootstrap.cli`."""

from __future__ import annotations

from typing import NoReturn

from coordinate.errors import StepRefused

EXIT_REFUSED = 81
EXIT_NOT_CREATED = 82
EXIT_UNSETTLED = 83
OWN_CODES = frozenset({EXIT_REFUSED, EXIT_NOT_CREATED, EXIT_UNSETTLED})


def refuse(reason: str) -> NoReturn:
    """End a step that nobody must go on with: what is wrong is the same for every member."""
    raise StepRefused(reason, EXIT_REFUSED)
