"""Leases: one flock per name, held through an open descriptor, so the kernel ends it with its holder.

Files of a name in the folder ``leases``: ``<stem>.lock`` (empty, only ever locked, never removed),
``<stem>.json`` (who holds it: written anew by each holder, locked and kept open as long as the lease),
``<stem>.token`` (see `tokens`), ``<stem>.broken`` (the token that an operator's break raised).

- The lock is truth, the record tells about it. A record counts while its own file is locked, so that asking
  who holds a lease never disturbs those who try to get it. Its close is the event that wakes waiters, also
  after kill -9.
- ``filelock.lock_descriptor`` takes the very lock that ``filelock.FileLock`` takes, and the two exclude each
  other. The class itself will not do: it unlocks when collected and at interpreter exit, which would free the
  duplicate that a guardian still holds; here a lease that was not released ends with its *last* descriptor.
- Two owners in one process exclude each other because each attempt opens the lock file anew.

Not promised: expiry. A live but hung holder keeps the lease until its guardian unlocks the shared descriptor.
Removing a ``.lock`` file by hand lets a second holder in, until the first one's next renewal finds out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

import msgspec
from filelock import lock_descriptor, unlock_descriptor

from coordinate import _identity, _wire
from coordinate.errors import CorruptRecord
from coordinate.types import (
    AcquireAnswer,
    Gone,
    Grant,
    Granted,
    Held,
    LeaseRecord,
    LossReason,
    Owner,
    RenewAnswer,
    Renewed,
    Unknown,
)
from coordinate_filelock import line, tokens
from coordinate_filelock.volume import Folder, Volume, stem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = "leases"
_ATTEMPTS = 5


class Break(msgspec.Struct, frozen=True):
    """The file that an operator's break leaves, for the holder and for whoever asks later."""

    name: str
    token: int
    by: str
    v: int = 1


class Record(LeaseRecord, frozen=True):
    """Content of a record's file: also what the next holder needs to go on in the same block of tokens."""

    reserved: int = 0
    kernel: str = ""


class Hold:
    """A lease that this process was granted: its two descriptors, and whether it is known to be over."""

    def __init__(self, grant: Grant, lock_fd: int, record_fd: int) -> None:
        self.grant = grant
        self.lock_fd = lock_fd
        self.record_fd = record_fd
        self.gone: LossReason | None = None
        self.shared = False
        """Whether somebody was given the descriptors, and so may have unlocked them."""
        # A renewal must not use a descriptor number that a release has just given back.
        self.mutex = threading.Lock()

    def close(self) -> None:
        """Close both descriptors; what the guardian holds stays locked."""
        for fd in (self.lock_fd, self.record_fd):
            with contextlib.suppress(OSError):
                os.close(fd)


_HOLDS: dict[tuple[tuple[int, int], str], Hold] = {}
"""All leases of this process, whatever coordinator got them, by identity of the folder and stem."""


def _find(grant: Grant) -> tuple[tuple[tuple[int, int], str], Hold] | None:
    for key, hold in list(_HOLDS.items()):
        ours = hold.grant
        # Token 0: the answer to the request was lost, and its owner does not know what it was granted.
        if (ours.nonce, ours.name) == (grant.nonce, grant.name) and grant.token in {0, ours.token}:
            return key, hold
    return None


def _forget_in_child() -> None:
    """Let go of what a fork copied: the parent's death must end its leases although the child lives."""
    for hold in _HOLDS.values():
        hold.close()
    _HOLDS.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class LeaseFiles:
    """The lease operations of one namespace. Errors of the system come as `OSError`."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def folder(self, *, create: bool) -> Folder:
        """Open the folder with the lease files."""
        return self._volume.open(FOLDER, create=create)

    def acquire(self, name: str, owner: Owner, ttl: float, floor: int, kernel: str = "") -> AcquireAnswer:
        """Grant, or say who holds it; never waits. For ``kernel`` see `tokens.take`."""
        file = stem(name)
        with self.folder(create=True) as folder, contextlib.ExitStack() as unless_granted:
            present = _HOLDS.get((folder.identity, file))
            mine = present is not None and present.grant.nonce == owner.nonce
            if present is not None and mine and _judge(folder, file, present) is None:
                return Granted(present.grant)
            lock_fd = _lock(folder, file)
            if lock_fd is None:
                record = _living(folder, file, name)
                return Held(record, record.ttl if record else ttl)
            unless_granted.callback(os.close, lock_fd)
            told = _told(folder, file, name)
            trace = tokens.Trace(told.token, told.reserved, told.kernel) if told else tokens.Trace()
            floor = max(floor, _broken(folder, file))
            token, block = tokens.take(folder, file, name, floor, trace=trace, kernel=kernel)
            grant = Grant(name, token, owner.nonce, ttl)
            record_fd = _write_record(folder, file, Record(name, token, owner, ttl, reserved=block, kernel=kernel))
            unless_granted.pop_all()
            _keep((folder.identity, file), grant, lock_fd, record_fd)
            return Granted(grant)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Look whether each lock is still held by this process, for that very grant."""
        try:
            with self.folder(create=False) as folder:
                return [_renew(folder, grant) for grant in grants]
        except FileNotFoundError:
            return [Gone(LossReason.EXPIRED) for _ in grants]
        except OSError as error:
            return [Unknown(str(error)) for _ in grants]

    def release(self, grant: Grant) -> bool:
        """Unlock on the shared open file, so that duplicates do not keep the lease, and wake the waiters.

        A broken lease is let go here, too, and not earlier: its holder's children may have lived until now.
        """
        found = _find(grant)
        if found is None:
            return False
        key, hold = found
        with hold.mutex:
            if _HOLDS.get(key) is not hold:
                return False
            # An unreadable volume must not keep us from letting go.
            with contextlib.suppress(OSError), self.folder(create=False) as folder:
                _judge_locked(folder, key[1], hold)
            del _HOLDS[key]
            _let_go(hold)
        return hold.gone is None

    def holder(self, name: str) -> LeaseRecord | None:
        """Return the record if its writer still lives."""
        with self._open_or_none() as folder:
            return None if folder is None else _living(folder, stem(name), name)

    def leases(self, prefix: str) -> list[LeaseRecord]:
        """Return the records of all living holders."""
        with self._open_or_none() as folder:
            names = folder.names() if folder else []
            files = [name.removesuffix(".json") for name in names if name.endswith(".json")]
            found = [_living(folder, file) for file in files] if folder else []
        records = [record for record in found if record is not None and record.name.startswith(prefix)]
        return sorted(records, key=lambda record: record.name)

    def break_lease(self, name: str) -> int:
        """Raise the token durably, without the lock: a live holder has that."""
        file = stem(name)
        with self.folder(create=True) as folder:
            present = max(tokens.reserved(folder, file), _highest_known(folder, file, name))
            mark = Break(name, present + 1, str(_identity.mint("break")))
            folder.replace(f"{file}.broken", _wire.encode(mark))
            return mark.token

    def descriptors(self, grant: Grant) -> tuple[int, ...]:
        """Return the lock's and the record's descriptor of a held lease."""
        found = _find(grant)
        if found is None:
            return ()
        found[1].shared = True
        return found[1].lock_fd, found[1].record_fd

    def ring(self, name: str) -> None:
        """Make all who wait for a lease look: close its record and their tickets, as if written."""
        for part in (FOLDER, line.FOLDER):
            with contextlib.suppress(FileNotFoundError), self._volume.open(part, create=False) as folder:
                for file in line.tickets(folder, stem(name)) if part == line.FOLDER else [f"{stem(name)}.json"]:
                    with contextlib.suppress(FileNotFoundError):
                        os.close(folder.open_to_wake(file))

    @contextlib.contextmanager
    def _open_or_none(self) -> Iterator[Folder | None]:
        with contextlib.ExitStack() as stack:
            folder = None
            with contextlib.suppress(FileNotFoundError):
                folder = stack.enter_context(self.folder(create=False))
            yield folder


def _lock(folder: Folder, file: str) -> int | None:
    """Return a descriptor with the lock; None when somebody has it."""
    for _ in range(_ATTEMPTS):
        fd = folder.open_lock(f"{file}.lock")
        with contextlib.ExitStack() as unless_locked:
            unless_locked.callback(os.close, fd)
            if not lock_descriptor(fd, blocking=False):
                return None
            # Somebody may have removed the file between our open and our lock: such a lock excludes nobody.
            if folder.same(f"{file}.lock", fd):
                unless_locked.pop_all()
                return fd
    raise OSError(errno.ESTALE, "the lock file is being removed again and again", f"{file}.lock")


def _write_record(folder: Folder, file: str, record: LeaseRecord) -> int:
    """Publish who holds the lease, locked from its first instant; return the descriptor to be kept open."""
    draft = folder.write(_wire.encode(record), durable=False)
    try:
        lock_descriptor(draft.fd, blocking=False)
        # Not replaced in one step: ext4 answers that by writing the data out, a hundred times the cost of the rest.
        folder.remove(f"{file}.json")
        folder.rename(draft, f"{file}.json")
    except BaseException:
        folder.drop(draft)
        raise
    return draft.fd


def _keep(key: tuple[tuple[int, int], str], grant: Grant, lock_fd: int, record_fd: int) -> None:
    if lock_fd < record_fd:
        # A dying process gives back its highest descriptors first: the lock has to be free when the record's
        # close wakes the waiters (otherwise they look once more a moment later).
        higher = fcntl.fcntl(lock_fd, fcntl.F_DUPFD_CLOEXEC, record_fd + 1)
        os.close(lock_fd)
        lock_fd = higher
    earlier = _HOLDS.get(key)
    _HOLDS[key] = Hold(grant, lock_fd, record_fd)
    if earlier is not None:  # lost without its release: unlocked by a guardian
        with earlier.mutex:
            earlier.close()


def _let_go(hold: Hold) -> None:
    # First the lock: the record's close is what wakes the waiters. The record itself stays: unlocked it is nobody's.
    for fd in (hold.lock_fd, hold.record_fd):
        with contextlib.suppress(OSError):
            unlock_descriptor(fd)
    hold.close()


def _renew(folder: Folder, grant: Grant) -> RenewAnswer:
    file = stem(grant.name)
    hold = _HOLDS.get((folder.identity, file))
    try:
        if hold is not None and hold.grant == grant:
            reason = _judge(folder, file, hold)
            return Renewed(grant.ttl) if reason is None else Gone(reason)
        if _broken(folder, file) > grant.token:
            return Gone(LossReason.BROKEN)
        record = _living(folder, file, grant.name)
        return Gone(LossReason.TAKEN if record and record.token > grant.token else LossReason.EXPIRED)
    except OSError as error:
        return Unknown(str(error))


def _judge(folder: Folder, file: str, hold: Hold) -> LossReason | None:
    with hold.mutex:
        if _HOLDS.get((folder.identity, file)) is not hold:
            return LossReason.EXPIRED
        return _judge_locked(folder, file, hold)


def _judge_locked(folder: Folder, file: str, hold: Hold) -> LossReason | None:
    """Return why a lease of this process is over, or None; what is over stays over."""
    if hold.gone is None:
        if _broken(folder, file) > hold.grant.token:
            hold.gone = LossReason.BROKEN
        elif not folder.same(f"{file}.json", hold.record_fd) or not folder.same(f"{file}.lock", hold.lock_fd):
            # Each holder writes a record of its own: with ours in place, nobody was granted since.
            hold.gone = LossReason.TAKEN
        elif hold.shared and _is_free(folder, file):
            hold.gone = LossReason.EXPIRED
        elif hold.shared and not lock_descriptor(hold.lock_fd, blocking=False):
            hold.gone = LossReason.TAKEN
    return hold.gone


def _is_free(folder: Folder, file: str) -> bool:
    """Return whether a lock that we believe to hold was unlocked by our guardian, on the open file we share.

    Locking it again through our own descriptor would succeed either way; a second open file tells. If another
    process is looking at the same moment we may be told no; then the caller takes the lock back or fails to.
    """
    fd = folder.open_lock(f"{file}.lock")
    try:
        return lock_descriptor(fd, blocking=False)
    finally:
        os.close(fd)


def _told(folder: Folder, file: str, name: str | None = None) -> Record | None:
    """Return what the record file says, of a living or a dead holder; None if it says nothing usable."""
    try:
        record = _wire.decode(Record, folder.read(f"{file}.json", _wire.LIMIT) or b"")
    except (FileNotFoundError, CorruptRecord):
        return None
    return record if (record.name == name if name else stem(record.name) == file) else None


def _highest_known(folder: Folder, file: str, name: str) -> int:
    """Return the highest token that record and break tell about, whatever the counter says."""
    told = _told(folder, file, name)
    return max(_broken(folder, file), told.token if told else 0)


def _living(folder: Folder, file: str, name: str | None = None) -> LeaseRecord | None:
    """Return what the record file says if its writer still has it locked."""
    try:
        fd = folder.open_to_read(f"{file}.json")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return None
        raise
    try:
        # Shared: two who ask at once must not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        record = _told(folder, file, name)
        return record and LeaseRecord(record.name, record.token, record.owner, record.ttl, record.ttl)
    else:
        return None
    finally:
        os.close(fd)


def _broken(folder: Folder, file: str) -> int:
    """Return the token that the last break raised; 0 if there was none."""
    try:
        return _wire.decode(Break, folder.read(f"{file}.broken", _wire.LIMIT) or b"").token
    except (FileNotFoundError, CorruptRecord):
        return 0
