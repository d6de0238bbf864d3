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
from coordinate_filelock.leases import BELL
from coordinate_filelock.records import NEWS
from coordinate_filelock.volume import stem

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.types import Topic
    from coordinate_filelock.volume import Folder

INTERVAL = 0.25
"""The net: a waiter looks for itself this often, in seconds, also when the kernel reports nothing."""
INTERVAL_BLIND = 0.1
"""The same where the kernel cannot report."""
INTERVAL_MISSED = 0.005
"""Once, after a wake-up that came a moment before the dying holder's lock was free."""
_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_UNMOUNT, _OVERFLOW, _IGNORED, _ONLYDIR = 0x2000, 0x4000, 0x8000, 0x01000000
_MASKS = {"lease": _CLOSE_WRITE | _MOVED_TO, "markers": _CREATE | _MOVED_TO}
_HEADER = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class FileWatch(Watch):
    """One inotify instance for all topics of this process."""

    def __init__(self, folder_of: Callable[[Topic], Folder]) -> None:
        self._folder_of = folder_of
        self._lock = threading.Lock()
        self._fd = _open_inotify()
        self.blind = self._fd < 0
        if self.blind:
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._net = INTERVAL_BLIND if self.blind else INTERVAL
        self.poll_interval = self._net
        self._closed = False
        self._keys: dict[Topic, tuple[int, str]] = {}
        self._topics: dict[tuple[int, str], set[Topic]] = defaultdict(set)
        self._woken: set[Topic] = set()

    def fileno(self) -> int:
        """Return the inotify descriptor, or an eventfd that never fires."""
        return self._fd

    def add(self, topic: Topic) -> None:
        """Watch the folder that a topic is about, created if missing; failing that, waiters poll."""
        if topic.kind not in _MASKS or topic in self._keys:
            return
        with self._lock:
            descriptor = -1
            if not (self.blind or self._closed):
                # A folder that cannot be made or watched: the net holds, and operations say what is wrong.
                with contextlib.suppress(OSError), self._folder_of(topic) as folder:
                    descriptor = self._watch(folder, _MASKS[topic.kind])
            self._keys[topic] = (descriptor, stem(topic.name) if topic.kind == "lease" else "")
            self._topics[self._keys[topic]].add(topic)

    def _watch(self, folder: Folder, mask: int) -> int:
        # Through the descriptor, so that nobody can swap the path under us.
        path = f"/proc/self/fd/{folder.fd}".encode()
        found: int = _LIBC.inotify_add_watch(self._fd, path, mask | _ONLYDIR)
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return found

    def remove(self, topic: Topic) -> None:
        """Stop watching a topic, and its folder with the last one in it."""
        with self._lock:
            key = self._keys.pop(topic, None)
            if key is None:
                return
            self._topics[key].discard(topic)
            if not self._topics[key]:
                del self._topics[key]
            if key[0] >= 0 and not self._closed and all(descriptor != key[0] for descriptor, _ in self._keys.values()):
                _LIBC.inotify_rm_watch(self._fd, key[0])

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
        mine = any(descriptor == known for known, _ in self._keys.values())
        if mine and mask & (_IGNORED | _UNMOUNT):
            message = "a watched folder was removed or unmounted; watching again"
            raise BackendUnavailable(message)
        text = os.fsdecode(name)
        for ending in (".json", BELL):
            if text.endswith(ending):
                return self._topics.get((descriptor, text.removesuffix(ending)), set())
        return self._topics.get((descriptor, ""), set()) if text.startswith(NEWS) else set()

    def missed(self, topic: Topic) -> None:
        """Note that a waiter looked and found the lease held: after a wake-up it looks once more, soon."""
        with self._lock:
            self.poll_interval = INTERVAL_MISSED if topic in self._woken else self._net
            self._woken.discard(topic)

    def knows(self, topic: Topic) -> bool:
        """Return whether a topic is watched."""
        return topic in self._keys

    def close(self) -> None:
        """Give the kernel's instance back."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)


def _open_inotify() -> int:
    """Return an inotify descriptor; a negative number where there is none to be had."""
    try:
        found: int = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except AttributeError:
        return -1
    return found
