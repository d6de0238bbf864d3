"""The line of those who wait for a lease on this host, so that a release wakes one of them and not all.

Each has a ticket, a file in the folder ``queue`` that it keeps open for writing and locked. It watches the ticket
just ahead of it; the first one watches the holder's record. The kernel reports the closing of either, by release
and by death alike. The order is a courtesy: who looks while the lease is free gets it.

Not promised: a wake-up for who stands behind a process that is stopped. That one's net is its poll interval.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from coordinate_filelock.volume import Folder, Volume

FOLDER = "queue"
_TICKETS: set[int] = set()


def _forget_in_child() -> None:
    """Close what a fork copied: the ticket must end with its owner."""
    for fd in _TICKETS:
        os.close(fd)
    _TICKETS.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class Ticket(NamedTuple):
    """A place in the line for one lease."""

    name: str
    fd: int


def join(volume: Volume, stem: str) -> Ticket:
    """Stand at the end."""
    with volume.open(FOLDER, create=True) as folder:
        # An at sign is in no stem, so that the tickets of "a" and "a.b" are told apart.
        name = f"{stem}@{time.monotonic_ns():020}@{secrets.token_hex(6)}"
        fd = folder.open_lock(name)
        _TICKETS.add(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Ticket(name, fd)


def leave(volume: Volume, ticket: Ticket) -> None:
    """Go; the one behind is woken."""
    # A folder that is gone must not keep us from letting go.
    with contextlib.suppress(OSError), volume.open(FOLDER, create=False) as folder:
        folder.remove(ticket.name)
    _TICKETS.discard(ticket.fd)
    fcntl.flock(ticket.fd, fcntl.LOCK_UN)
    os.close(ticket.fd)


def ahead(volume: Volume, ticket: Ticket) -> int | None:
    """Return a descriptor of the nearest living ticket ahead; None for the first one."""
    stem = ticket.name.partition("@")[0]
    with volume.open(FOLDER, create=False) as folder:
        for name in tickets(folder, stem, before=ticket.name):
            with contextlib.suppress(FileNotFoundError):
                fd = folder.open_to_read(name)
                if lives(fd):
                    return fd
                os.close(fd)
                folder.remove(name)
    return None


def tickets(folder: Folder, stem: str, before: str = "\x7f") -> list[str]:
    """Return the tickets for a lease, the latest first."""
    return sorted((name for name in folder.names() if name.startswith(f"{stem}@") and name < before), reverse=True)


def lives(fd: int) -> bool:
    """Return whether whoever wrote an open file still has it locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
