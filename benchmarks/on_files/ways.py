"""Ways to hold a lock in a folder: ours, the kernel's bare one, and filelock as its users call it."""

from __future__ import annotations

import fcntl
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar


class Way(ABC):
    """One contender for a name."""

    label: ClassVar[str]
    waits: ClassVar[str]

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name

    @abstractmethod
    def acquire(self) -> None:
        """Return with the lock."""

    @abstractmethod
    def release(self) -> None:
        """Give it back."""


class Coordinate(Way):
    """A lease: fencing token, record, renewal."""

    label = "coordinate"
    waits = "inotify, in line"

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)
        from coordinate import connect

        self.coordinator = connect(f"file://{folder}/store", namespace="bench")
        self.lease = self.coordinator.lease(name)

    def acquire(self) -> None:
        """Wait for the lease."""
        self.lease.acquire()

    def release(self) -> None:
        """Give it back; it is an error if it was lost."""
        if not self.lease.release():
            message = "the lease was lost"
            raise RuntimeError(message)


class BareFlock(Way):
    """The limit: a descriptor that is kept, and the kernel's own queue."""

    label = "bare flock"
    waits = "blocked in flock"

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)
        self._fd = os.open(Path(folder, f"{name}.flock"), os.O_RDWR | os.O_CREAT)

    def acquire(self) -> None:
        """Block."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def release(self) -> None:
        """Unlock."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)


class Filelock(Way):
    """filelock's FileLock with its defaults."""

    label = "filelock"
    waits = "polls, 0.05 s"

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)
        from filelock import FileLock

        self._lock = FileLock(f"{folder}/{name}.filelock")

    def acquire(self) -> None:
        """Poll."""
        self._lock.acquire()

    def release(self) -> None:
        """Unlock and close."""
        self._lock.release()


ALL: tuple[type[Way], ...] = (Coordinate, BareFlock, Filelock)
