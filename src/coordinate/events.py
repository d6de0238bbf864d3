"""What happens while a plan runs, told to an observer as it happens."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One thing that happened.

    Args:
        kind: ``waiting``, ``leading``, ``takeover``, ``begin``, ``done``, ``failed``, ``interrupted``, ``lost``,
            ``output``, ``unavailable``, ``stale``.
        step: which step, or empty.
        token: the fencing token it happened under, or 0.
        text: for people; never a secret of ours.
        elapsed: seconds the step or the wait took so far.
    """

    kind: str
    step: str = ""
    token: int = 0
    text: str = ""
    elapsed: float = 0.0
