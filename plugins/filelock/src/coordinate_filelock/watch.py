"""Waiting for changes of folders: inotify through ctypes, for the standard library has no door to it.

What wakes: for leases the close of a holder's record (release and death alike) and never a failed attempt of
another waiter; for markers the appearance of a claim, seal, record or reset. A kernel without inotify, or
without instances left, is no error: the channel then never fires, and waiters look for themselves somewhat
more often.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from coordinate.backend import Watch
from coordinate.errors import BackendUnavailable
from coordinate_filelock import line
from coordinate_filelock.leases import FOLDER as LEASES
from coordinate_filelock.records import NEWS
from coordinate_filelock.volume import stem

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.types import Topic
    from coordinate_filelock.line import Ticket
    from coordinate_filelock.volume import Folder, Volume

INTERVAL = 0.25
"""The net: a waiter looks for itself this often, in seconds, also when the kernel reports nothing."""
INTERVAL_LOCAL = 1.0
"""The same where no other host can change a file, so that the kernel reports everything."""
INTERVAL_BLIND = 0.1
"""The same where the kernel cannot report."""
INTERVAL_MISSED = 0.005
"""Once, after a wake-up that came a moment before the dying holder's lock was free."""
_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_UNMOUNT, _OVERFLOW, _IGNORED, _ONLYDIR = 0x2000, 0x4000, 0x8000, 0x01000000
_NEWS = _CREATE | _MOVED_TO
_HEADER = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class FileWatch(Watch):
    """One inotify instance for all topics of this process."""

    def __init__(self, volume: Volume, folder_of: Callable[[str], Folder], *, local: bool) -> None:
        self._volume = volume
        self._folder_of = folder_of
        self._lock = threading.Lock()
        self._fd = _open_inotify()
        self.blind = self._fd < 0
        if self.blind:
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._net = INTERVAL_BLIND if self.blind else INTERVAL_LOCAL if local else INTERVAL
        self.poll_interval = self._net
        self._closed = False
        self._keys: dict[Topic, int] = {}
        self._topics: dict[int, set[Topic]] = defaultdict(set)
        self._tickets: dict[Topic, Ticket] = {}
        self._woken: set[Topic] = set()

    def fileno(self) -> int:
        """Return the inotify descriptor, or an eventfd that never fires."""
        return self._fd

    def add(self, topic: Topic) -> None:
        """Watch a scope's folder, created if missing; failing that, waiters poll. For a lease, `stand` does it."""
        if topic.kind not in {"lease", "markers"} or topic in self._keys:
            return
        with self._lock:
            descriptor = -1
            if topic.kind == "markers" and not (self.blind or self._closed):
                # A folder that cannot be made or watched: the net holds, and operations say what is wrong.
                with contextlib.suppress(OSError), self._folder_of(topic.name) as folder:
                    descriptor = self._watch(folder.fd, _NEWS | _ONLYDIR)
            self._keys[topic] = descriptor
            self._topics[descriptor].add(topic)

    def stand(self, topic: Topic) -> bool:
        """Stand in line for a held lease; True if it may have been freed before we watched: look again."""
        self.add(topic)
        if self.blind or self._closed:
            return False
        try:
            return self._stand(topic)
        except FileNotFoundError:  # between two records, or a holder that writes none: look again, then now and then
            self.poll_interval = INTERVAL_BLIND
            return True
        except OSError:  # a full disk, or no watch left: look for oneself more often
            self.poll_interval = INTERVAL_BLIND
            return False

    def _stand(self, topic: Topic) -> bool:
        with self._lock:
            if topic not in self._tickets:
                self._tickets[topic] = line.join(self._volume, stem(topic.name))
            fd = line.ahead(self._volume, self._tickets[topic])
            if fd is None:
                with self._volume.open(LEASES, create=False) as folder:
                    fd = folder.open_to_read(f"{stem(topic.name)}.json")
            try:
                before = self._keys[topic]
                found = self._watch(fd, _CLOSE_WRITE)
                self._move(topic, found)
                # Told that it closes, and still there: a dying process tells so an instant before it lets go.
                self.poll_interval = INTERVAL_MISSED if topic in self._woken and found == before else self._net
                self._woken.discard(topic)
                return not line.lives(fd)
            finally:
                os.close(fd)

    def _move(self, topic: Topic, descriptor: int | None) -> None:
        """Watch another file for a topic, or none; forget the earlier one with its last topic."""
        before = self._keys.pop(topic)
        if descriptor is not None:
            self._keys[topic] = descriptor
            self._topics[descriptor].add(topic)
        if before != descriptor:
            self._topics[before].discard(topic)
            if not self._topics[before]:
                del self._topics[before]
                if before >= 0 and not self._closed:
                    _LIBC.inotify_rm_watch(self._fd, before)

    def _watch(self, fd: int, mask: int) -> int:
        # Through the descriptor, so that nobody can swap the path under us.
        found: int = _LIBC.inotify_add_watch(self._fd, f"/proc/self/fd/{fd}".encode(), mask)
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return found

    def remove(self, topic: Topic) -> None:
        """Stop watching a topic, and leave its line."""
        with self._lock:
            if topic in self._keys:
                self._move(topic, None)
            self._woken.discard(topic)
            ticket = self._tickets.pop(topic, None)
            if ticket is not None:
                line.leave(self._volume, ticket)

    def drain(self) -> frozenset[Topic]:
        """Return the topics that the kernel reported; all of them after an overflow."""
        changed: set[Topic] = set()
        with self._lock:
            while not (self._closed or self.blind) and (data := self._read()):
                offset = 0
                while offset < len(data):
                    descriptor, mask, _, size = _HEADER.unpack_from(data, offset)
                    offset += _HEADER.size + size
                    changed |= self._meaning(descriptor, mask, data[offset - size : offset].rstrip(b"\0"))
            self._woken |= {topic for topic in changed if topic.kind == "lease"}
        return frozenset(changed)

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return b""
        except OSError as error:
            message = f"the kernel's channel for file changes broke: {error}"
            raise BackendUnavailable(message) from error

    def _meaning(self, descriptor: int, mask: int, name: bytes) -> set[Topic]:
        if mask & _OVERFLOW:
            return set(self._keys)
        topics = self._topics.get(descriptor, set())
        if any(topic.kind == "lease" for topic in topics):
            return set(topics)
        if topics and mask & (_IGNORED | _UNMOUNT):
            message = "a watched folder was removed or unmounted; watching again"
            raise BackendUnavailable(message)
        return topics if os.fsdecode(name).startswith(NEWS) else set()

    def close(self) -> None:
        """Give the kernel's instance back."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for ticket in self._tickets.values():
                    line.leave(self._volume, ticket)
                self._tickets.clear()
                os.close(self._fd)


def _open_inotify() -> int:
    """Return an inotify descriptor; a negative number where there is none to be had."""
    try:
        found: int = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except AttributeError:
        return -1
    return found
