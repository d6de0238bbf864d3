"""Files that others read while we write them: replaced as a whole, never changed in place."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NEW_FILE_MODE = 0o644


def replace(path: Path, text: str) -> None:
    """Write a file by rename: others see the old or the new one, and a crash leaves one of them, durably.

    Mode and owner stay; a new file is readable by everybody. Not promised: that of two writers at the same time the
    later one wins. Whoever reads and then writes holds a lock around both.

    Raises:
        OSError: the file is as it was.
    """
    # A name of its own for each call: every container's process may have the number 1.
    fresh = path.with_name(f".{path.name[:100]}.{os.getpid()}.{os.urandom(6).hex()}.new")
    # Nobody else may read it before it has the mode of the file that it replaces: that one may hold a password.
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            _make_like(file.fileno(), path)
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _make_like(descriptor: int, path: Path) -> None:
    """Give a new file the owner and mode of the one that it replaces."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, _NEW_FILE_MODE)
        return
    with contextlib.suppress(PermissionError):  # ours if it cannot be theirs
        os.fchown(descriptor, old.st_uid, old.st_gid)
    # After the owner: changing that one may clear bits of the mode.
    os.fchmod(descriptor, old.st_mode & 0o7777)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
