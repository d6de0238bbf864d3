"""Safe file primitives below one folder: nothing outside is touched, nothing odd inside can hang or fool us.

Every name is opened relative to a descriptor of its folder, without following links and without blocking;
what is not a regular file is refused; reads are bounded; what must be durable is written to a temporary file,
synced, and published by ``rename`` (replaces) or ``link`` (creates, exclusively), and then the folder is
synced. Modes do not depend on the umask: files ``0640``, lock files ``0660`` (members of the group may open
them to lock), folders ``0770``.

Not promised: that a system call on a hung network mount returns; protection from somebody who may write the
folder and forges well-formed records.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from typing import TYPE_CHECKING, NamedTuple

from coordinate._names import decode, encode
from coordinate.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

FILE_MODE = 0o640
LOCK_MODE = 0o660
FOLDER_MODE = 0o770
LONGEST_STEM = 120
STALE_TEMPORARY = 3600.0
"""Seconds, by the volume's own clock, after which a temporary file is what a crash left."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY
_TEMPORARY = "tmp."
_HINTS = {
    errno.ENOSPC: "the disk is full: free space on it",
    errno.EDQUOT: "the quota is used up: free space or raise it",
    errno.EROFS: "it is mounted read-only: mount it writable",
    errno.EACCES: "give this user permission to write there",
    errno.EPERM: "give this user permission, or use a file system that has hard links",
    errno.ENOENT: "create the folder, or mount the volume that holds it",
    errno.ENOTDIR: "the path must name a folder",
    errno.ELOOP: "something planted a link or a special file there: remove it",
    errno.EMFILE: "this process has no descriptor left: raise its limit (ulimit -n)",
    errno.ENFILE: "this host has no descriptor left",
    errno.ESTALE: "the volume was replaced or remounted: restart this process",
    errno.ENOSYS: "this file system has no flock: use another folder or another store",
    errno.EOPNOTSUPP: "this file system lacks flock or hard links: use another folder or another store",
    errno.ENOLCK: "the file system's lock service does not work: use another folder or another store",
}


def stem(name: str) -> str:
    """Return the file name for a coordinate name: reversible where it can be, else bounded and hashed.

    Distinct names have distinct stems, also on a file system that ignores case.

    Example:
        >>> stem("site/a")
        'site%2Fa'
        >>> stem("Site")
        'site~5a34fcdc34a0de39ffc2ac04272a2ca1'
    """
    text = encode(name)
    if len(text) <= LONGEST_STEM and name == name.lower():
        return text
    # A tilde never appears in encoded text, so hashed and plain stems cannot meet.
    return f"{text.lower()[:80]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def unstem(text: str) -> str | None:
    """Return the name that a stem stands for; None where it is hashed or not one of ours."""
    try:
        name = decode(text)
    except UnicodeDecodeError:
        return None
    return name if stem(name) == text else None


@contextlib.contextmanager
def told(path: str, doing: str) -> Iterator[None]:
    """Turn an error of the system into `BackendUnavailable` with path, attempt and a way out."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BackendUnavailable):
            raise
        what = f" ({error.filename})" if error.filename else ""
        hint = _HINTS.get(error.errno or 0, "look at the volume and the kernel's log")
        message = f"file://{path}: cannot {doing}: {error.strerror or error}{what}; {hint}"
        raise BackendUnavailable(message) from error


class Draft(NamedTuple):
    """A complete file that is not published yet; without a name where it needs none."""

    name: str
    fd: int

    @property
    def source(self) -> str:
        """Return where it can be linked from."""
        return self.name or f"/proc/self/fd/{self.fd}"


class Folder:
    """An open folder. Use it as a context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        found = os.fstat(fd)
        self.identity = (found.st_dev, found.st_ino)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def child(self, name: str, *, create: bool) -> Folder:
        """Open a folder below this one.

        Raises:
            FileNotFoundError: there is none, and ``create`` is false.
        """
        with contextlib.suppress(FileNotFoundError):
            return Folder(os.open(name, _FOLDER, dir_fd=self.fd))
        if not create:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE, dir_fd=self.fd)
            fd = os.open(name, _FOLDER, dir_fd=self.fd)
            _open_to_group(fd)
            os.fsync(self.fd)
            return Folder(fd)
        return Folder(os.open(name, _FOLDER, dir_fd=self.fd))

    def names(self) -> list[str]:
        """Return all entries. Never cached, unlike a look-up on a network mount."""
        return os.listdir(self.fd)  # noqa: PTH208 -- of a descriptor

    def open_to_read(self, name: str) -> int:
        """Return a descriptor of a regular file.

        Raises:
            OSError: ELOOP for a link or anything that is no regular file.
        """
        return _regular(os.open(name, _READ, dir_fd=self.fd), name)

    def open_to_wake(self, name: str) -> int:
        """Return a descriptor whose close is reported to those who watch the file."""
        return _regular(os.open(name, _WRITE, dir_fd=self.fd), name)

    def open_lock(self, name: str) -> int:
        """Return a descriptor of an empty file that is only ever locked; create it if there is none."""
        with contextlib.suppress(FileExistsError):
            fd = os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, LOCK_MODE, dir_fd=self.fd)
            os.fchmod(fd, LOCK_MODE)
            return fd
        try:
            fd = os.open(name, _WRITE, dir_fd=self.fd)
        except PermissionError:  # a lock file of another user: flock is content with reading
            fd = os.open(name, _READ, dir_fd=self.fd)
        # With a second name, one lock would be two leases'.
        return _regular(fd, name, links=1)

    def read(self, name: str, limit: int) -> bytes | None:
        """Return at most ``limit`` + 1 bytes of a file; None for a link, FIFO, device or folder.

        Raises:
            FileNotFoundError: there is no such file.
        """
        try:
            fd = self.open_to_read(name)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:
                return None
            raise
        try:
            return _read_fully(fd, limit + 1)
        finally:
            os.close(fd)

    def same(self, name: str, fd: int) -> bool:
        """Return whether a name still is the file that a descriptor was opened on."""
        try:
            found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(fd))

    def write(self, data: bytes, *, durable: bool, named: bool = True) -> Draft:
        """Write a complete temporary file: the caller's to `rename` or to `drop`, and its descriptor to close."""
        draft = self._open_draft(named=named)
        try:
            os.fchmod(draft.fd, FILE_MODE)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(draft.fd, rest) :]
            if durable:
                os.fsync(draft.fd)
        except BaseException:
            self.drop(draft)
            raise
        return draft

    def _open_draft(self, *, named: bool) -> Draft:
        if not named:
            # Nobody who watches the folder is woken by it, and nothing stays of it after a crash.
            with contextlib.suppress(OSError):  # not every file system has them
                return Draft("", os.open(".", _WRITE | os.O_TMPFILE, FILE_MODE, dir_fd=self.fd))
        name = _TEMPORARY + secrets.token_hex(12)
        return Draft(name, os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, FILE_MODE, dir_fd=self.fd))

    def drop(self, draft: Draft) -> None:
        """Close a draft, and remove it unless it was renamed."""
        os.close(draft.fd)
        if draft.name:
            self.remove(draft.name)

    @contextlib.contextmanager
    def draft(self, data: bytes, *, durable: bool) -> Iterator[Draft]:
        """Write a complete temporary file, gone after the block unless renamed, and closed."""
        draft = self.write(data, durable=durable)
        try:
            yield draft
        finally:
            self.drop(draft)

    def rename(self, draft: Draft, name: str) -> None:
        """Publish a draft, replacing what has that name."""
        os.rename(draft.name, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def replace(self, name: str, data: bytes) -> None:
        """Write a file durably, replacing what has that name."""
        with self.draft(data, durable=True) as draft:
            self.rename(draft, name)
        self.sync()

    def publish(self, name: str, data: bytes) -> None:
        """Write a file durably and completely, once.

        Raises:
            FileExistsError: the name is taken; nothing changed.
        """
        draft = self._linked(name, data)
        try:
            if not draft.name:
                # btrfs logs nothing of a file that has no link yet, whatever fsync answered.
                os.fsync(draft.fd)
        finally:
            self.drop(draft)
        self.sync()

    def _linked(self, name: str, data: bytes, *, named: bool = False) -> Draft:
        """Return a draft that has a name; what fails once it has one is for the caller to know, never tried again."""
        draft = self.write(data, durable=True, named=named)
        with contextlib.ExitStack() as unless_linked:
            unless_linked.callback(self.drop, draft)
            try:
                # The name of a nameless one is a link of the kernel's own.
                follow = not draft.name
                os.link(draft.source, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=follow)
            except OSError as error:
                # A nameless file may be opened, but not linked: without /proc, by some AppArmor profiles, on some FUSE.
                if draft.name or isinstance(error, FileExistsError):
                    raise
            else:
                unless_linked.pop_all()
                return draft
        return self._linked(name, data, named=True)

    def sync(self) -> None:
        """Make the names in this folder durable."""
        os.fsync(self.fd)

    def remove(self, name: str) -> None:
        """Remove a file; none is fine, too."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def touch(self, name: str, data: bytes = b"") -> None:
        """Make those who watch this folder look: a new file appears under that name, durable or not."""
        with self.draft(data, durable=False) as draft:
            self.rename(draft, name)

    def sweep(self) -> None:
        """Remove temporary files that a crash left, judged by the volume's own clock."""
        with self.draft(b"", durable=False) as draft:
            now = os.fstat(draft.fd).st_mtime
        for name in self.names():
            if name.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_mtime < now - STALE_TEMPORARY:
                        self.remove(name)


class Volume:
    """The folder that a URL names, and one namespace in it.

    The folder itself is created if its parent exists (the default one with its parents). Once this process
    has seen it, it must stay that very folder: an unmounted or replaced volume is an error, not an empty
    store.
    """

    def __init__(self, path: str, namespace: str, *, parents: bool = False) -> None:
        self.path = path
        self._namespace = stem(namespace)
        self._parents = parents
        self._identity: tuple[int, int] | None = None
        self._known: dict[tuple[str, ...], tuple[int, int]] = {}

    def open(self, *parts: str, create: bool) -> Folder:
        """Open a folder of this namespace.

        Raises:
            FileNotFoundError: there is none, and ``create`` is false.
        """
        known = self._known.get(parts)
        if known is not None:
            # By its path in one step: whatever the way there is now, it has to be the very folder that it was.
            with contextlib.suppress(OSError):
                folder = Folder(os.open("/".join((self.path, self._namespace, *parts)), _FOLDER))
                if folder.identity == known:
                    return folder
                os.close(folder.fd)
        folder = self._base()
        for part in (self._namespace, *parts):
            with folder as above:
                folder = above.child(part, create=create)
        self._known[parts] = folder.identity
        return folder

    def _base(self) -> Folder:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
        try:
            folder = Folder(os.open(self.path, flags))
        except FileNotFoundError:
            if self._identity is not None:
                raise OSError(errno.ESTALE, "the folder is gone", self.path) from None
            folder = self._create(flags)
        if self._identity is None:
            self._identity = folder.identity
        if folder.identity != self._identity:
            os.close(folder.fd)
            raise OSError(errno.ESTALE, "the folder is not the one it was", self.path)
        return folder

    def _create(self, flags: int) -> Folder:
        try:
            if self._parents:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)  # noqa: PTH103, PTH120
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, FOLDER_MODE)  # noqa: PTH102 -- pathlib costs more than this module
        except FileNotFoundError as error:
            # Not the error of a missing sub folder, which only means that nothing is stored there yet.
            message = f"file://{self.path}: the folder above it is missing; {_HINTS[errno.ENOENT]}"
            raise BackendUnavailable(message) from error
        folder = Folder(os.open(self.path, flags))
        _open_to_group(folder.fd)
        return folder


def _open_to_group(fd: int) -> None:
    """Set a new folder's mode, whatever the umask was; a set-group-id bit that it inherited stays."""
    os.fchmod(fd, FOLDER_MODE | (os.fstat(fd).st_mode & stat.S_ISGID))


def _regular(fd: int, name: str, links: int | None = None) -> int:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or (links is not None and found.st_nlink > links):
        os.close(fd)
        raise OSError(errno.ELOOP, "not a regular file of its own", name)
    return fd


def _read_fully(fd: int, size: int) -> bytes:
    parts = []
    while size and (part := os.read(fd, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
