"""Fencing tokens: a counter file per lease name, reserved in durable blocks under the lease's lock.

Before a token is granted, the file says durably that tokens up to at least this one are taken. Inside such a block
the next holder goes on where the last one's record ends, without a sync, if it was written by the same running
kernel, on a file system that only this kernel serves: what it has renamed it shows to everybody until it ends.
After a power failure or on a shared file system the record proves nothing: others than the process that reserved the
block then start above it. So a crash skips tokens and never repeats one.

A counter that cannot be read is never taken for zero. Not promised: tokens after somebody removed the counter
or restored an old copy of it; then the floor of the marker store is what is left.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from coordinate import _wire
from coordinate.errors import CorruptRecord

if TYPE_CHECKING:
    from coordinate_filelock.volume import Folder

BLOCK = 1024
"""Tokens reserved by one sync, which costs as much as fifty grants inside the block; what a crash skips at most."""


class Counter(msgspec.Struct, frozen=True):
    """The counter file."""

    name: str
    reserved: int
    """All tokens up to this one may have been granted."""
    v: int = 1


_SWEPT: set[tuple[int, int]] = set()
"""Folders that this process has swept: once is enough, and a listing of many leases is long."""
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


class Trace(NamedTuple):
    """What the last holder's record says: its token, the block that it is from, and the kernel that wrote it."""

    token: int = 0
    reserved: int = 0
    kernel: str = ""


def take(folder: Folder, stem: str, name: str, floor: int, *, trace: Trace, kernel: str) -> tuple[int, int]:
    """Return the next token above ``floor`` and above all earlier ones, and its block. The caller holds the lock.

    Args:
        folder: where the counter is.
        stem: of the counter's file.
        name: of the lease.
        floor: no token up to this one.
        trace: of the last holder.
        kernel: this one's boot id, or nothing where others may write the folder as well.
    """
    stored = reserved(folder, stem)
    key = (folder.identity, stem)
    last, mine = _BLOCKS.get(key, (0, 0))
    inside = (trace.reserved, trace.kernel) == (stored, kernel) if kernel else stored == mine
    token = max(last, trace.token, floor, 0 if inside else stored) + 1
    if not inside or token > stored:
        stored = token + BLOCK - 1
        folder.replace(f"{stem}.token", _wire.encode(Counter(name, stored)))
        if folder.identity not in _SWEPT:
            _SWEPT.add(folder.identity)
            folder.sweep()
    _BLOCKS[key] = (token, stored)
    return token, stored
