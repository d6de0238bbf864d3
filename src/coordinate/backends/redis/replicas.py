"""How many replicas have to have a write before it counts, and waiting until they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from redis.exceptions import ResponseError

from coordinate.backends.redis.failures import NotReplicated

if TYPE_CHECKING:
    from coordinate.backends.redis.node import Line
    from coordinate.backends.redis.options import Options


def confirm_grant(line: Line, options: Options) -> None:
    """Wait until a grant or renewal is where ``durability`` wants it.

    Raises:
        NotReplicated: it is not, or nobody can say where it has to be.
    """
    if options.durability == "none":
        return
    line.confirm(_all_of(line) if options.durability == "all" else 1, options.timeout / 2)


def confirm_record(line: Line, options: Options) -> None:
    """Wait until a claim or a record is on all connected replicas; with a ``durability``, on one at least.

    Raises:
        NotReplicated: it is not, or nobody can say where it has to be.
    """
    if options.durability == "all":
        needed = _all_of(line)
    else:
        needed = max(line.count_replicas() or 0, 0 if options.durability == "none" else 1)
    line.confirm(needed, options.timeout / 2)


def _all_of(line: Line) -> int:
    """Return how many are connected, at least 1: with none there is nobody to survive with."""
    count = line.count_replicas()
    return max(1, _told_by_role(line) if count is None else count)


def _told_by_role(line: Line) -> int:
    try:
        _, _, connected = cast("tuple[bytes, int, list[object]]", line.ask(b"ROLE"))
    except (ResponseError, ValueError) as error:
        message = f"how many replicas there are is not known ({error}): durability=all needs the right +info or +role"
        raise NotReplicated(message) from error
    return len(connected)
