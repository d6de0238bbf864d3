"""Fencing tokens: a counter file per lease name, reserved in durable blocks under the lease's lock.

Before a token is granted, the file says durably that tokens up to at least this one are taken. A process that
finds its own last reservation in the file goes on inside it; any other one starts above it. So a crash or a
power failure skips tokens and never repeats one, and a process that keeps getting the lease syncs once per
`BLOCK` grants.

A counter that cannot be read is never taken for zero. Not promised: tokens after somebody removed the counter
or restored an old copy of it; then the floor of the marker store is what is left.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from coordinate import _wire
from coordinate.errors import CorruptRecord

if TYPE_CHECKING:
    from coordinate_filelock.volume import Folder

BLOCK = 64


class Counter(msgspec.Struct, frozen=True):
    """The counter file."""

    name: str
    reserved: int
    """All tokens up to this one may have been granted."""
    v: int = 1


_BLOCKS: dict[tuple[tuple[int, int], str], tuple[int, int]] = {}
"""Of each counter: the last token that this process granted, and what it reserved last."""
# A forked child shares its parent's block and would grant the same tokens.
os.register_at_fork(after_in_child=_BLOCKS.clear)


def reserved(folder: Folder, stem: str) -> int:
    """Return the number up to which tokens may have been granted; 0 where nothing ever was.

    Raises:
        CorruptRecord: there is a counter, and it cannot be understood.
    """
    file = f"{stem}.token"
    try:
        data = folder.read(file, _wire.LIMIT)
    except FileNotFoundError:
        return 0
    try:
        return _wire.decode(Counter, data or b"").reserved
    except CorruptRecord as error:
        message = (
            f"the token counter {file!r} is damaged ({error}); nothing is granted: tokens could repeat. "
            'Way out: write {"name":"...","reserved":N} into it, N above every token in the logs and markers'
        )
        raise CorruptRecord(message) from error


def take(folder: Folder, stem: str, name: str, floor: int) -> int:
    """Return the next token above ``floor`` and above all earlier ones. The caller holds the lease's lock."""
    stored = reserved(folder, stem)
    key = (folder.identity, stem)
    last, mine = _BLOCKS.get(key, (0, 0))
    token = max(last if stored == mine else max(stored, last), floor) + 1
    if stored != mine or token > mine:
        mine = token + BLOCK - 1
        folder.replace(f"{stem}.token", _wire.encode(Counter(name, mine)))
        folder.sweep()
    _BLOCKS[key] = (token, mine)
    return token
