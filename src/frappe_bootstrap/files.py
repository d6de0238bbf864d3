"""Files that others read while we write them: replaced as a whole, never changed in place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NEW_FILE_MODE = 0o644
_LARGEST = 16 << 20


def read(path: Path) -> str:
    """Return the text of a plain file, without being held up by anything else of that name.

    Raises:
        OSError: it is missing, not a plain file (a fifo would keep us waiting), or larger than any file of a bench.
        ValueError: it is not text.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a plain file", str(path))
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise OSError(errno.EFBIG, f"is larger than {_LARGEST >> 20} MiB", str(path))
    return data.decode()


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
    sync_folder(path.parent)


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


def sync_folder(folder: Path) -> None:
    """Make a rename survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
