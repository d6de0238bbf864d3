"""Checks of what a guardian is ordered to do, before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def require(condition: object, message: str) -> None:
    """Raise `ValueError` unless a condition holds."""
    if not condition:
        raise ValueError(message)


def check(argv: Sequence[str], passed: Sequence[int], held: Sequence[int], unlocked: Sequence[int]) -> None:
    """Refuse a command, or lists of descriptors for it, that cannot be meant."""
    if isinstance(argv, str | bytes):
        message = "argv must be a sequence of strings, not one string: there is no shell to split it"
        raise TypeError(message)
    require(argv, "argv is empty: it needs at least the name of a command")
    require(min((3, *passed, *held)) > 2, "descriptors 0, 1, 2 are set by stdin, stdout, stderr")  # noqa: PLR2004
    require(not set(passed) & set(held), "a descriptor cannot be passed to the command and hidden from it")
    require(set(unlocked) <= set(held), "unlock_fds must be among hold_fds")
