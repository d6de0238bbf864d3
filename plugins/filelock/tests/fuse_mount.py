"""A stand-in for a network file system: one more mount of a folder, whose locks its other mounts do not see.

Names and attributes are cached for 3 s, as an NFS client does. A control file beside the folder may name an error (a
word such as ``EIO``) that every operation fails with, or ``skew=SECONDS`` for the times of files.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from fuse import FUSE, FuseOSError, Operations


class Mirror(Operations):
    """Hands every operation on to the folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.control = Path(f"{folder}.control")

    def __call__(self, op: str, path: str, *args: object) -> object:
        """Fail if told to, else do it."""
        word = self.control.read_text().strip() if self.control.exists() else ""
        if word.isupper() and op not in {"init", "destroy"}:
            raise FuseOSError(getattr(errno, word))
        found = super().__call__(op, self.folder + path, *args)
        if op == "getattr" and word.startswith("skew="):
            found["st_mtime"] += float(word.removeprefix("skew="))
        return found

    def getattr(self, path: str, fh: int | None = None) -> dict[str, float]:
        """Return the attributes."""
        found = os.lstat(path) if fh is None else os.fstat(fh)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime", "st_mtime", "st_ctime")
        return {name: getattr(found, name) for name in names}

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002 -- fusepy's signature
        """Return all names."""
        return [".", "..", *(one.name for one in os.scandir(path))]

    def create(self, path: str, mode: int, fi: object = None) -> int:  # noqa: ARG002 -- fusepy's signature
        """Create a file."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        """Open a file."""
        return os.open(path, flags & os.O_ACCMODE)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002 -- fusepy's signature
        """Read."""
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:  # noqa: ARG002 -- fusepy's signature
        """Write."""
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        """Cut."""
        os.truncate(path if fh is None else fh, length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:  # noqa: ARG002 -- fusepy's signature
        """Sync."""
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:  # noqa: ARG002 -- fusepy's signature
        """Close."""
        os.close(fh)

    def link(self, target: str, source: str) -> None:
        """Give a file a second name."""
        os.link(source if source.startswith(self.folder) else self.folder + source, target)

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        Path(old).rename(self.folder + new)

    chmod = staticmethod(os.chmod)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    unlink = staticmethod(os.unlink)


if __name__ == "__main__":
    cached = {"attr_timeout": 3, "entry_timeout": 3, "negative_timeout": 3}
    FUSE(Mirror(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True, **cached)
