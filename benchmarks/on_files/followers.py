"""Processes that wait until a file says that a step is done."""

from __future__ import annotations

import ctypes
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from benchmarks.common.fleet import Member

_MOVED_TO = 0x80
_WITHIN = 30.0


class News(ABC):
    """One way to tell and to wait."""

    label: ClassVar[str]

    def __init__(self, folder: str, name: str) -> None:
        self.folder = Path(folder)
        self.name = name

    @abstractmethod
    def prepare(self) -> None:
        """Do what the teller does before there is anything to tell."""

    @abstractmethod
    def tell(self) -> None:
        """Say that it is done."""

    @abstractmethod
    def follow(self) -> None:
        """Return when it is done."""


class Marker(News):
    """A durable marker, written under a claimed lease; each follower returns with its record."""

    label = "coordinate marker"

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)
        from coordinate import connect

        self._coordinator = connect(f"file://{folder}/store", namespace="bench")
        self._markers = self._coordinator.markers(name)

    def prepare(self) -> None:
        """Lead, claim and begin."""
        self._markers.claim(self._coordinator.lease(self.name).acquire(), self._coordinator.backend.store_id)
        self._begun = self._markers.begin("step", "1")

    def tell(self) -> None:
        """Record that it is done."""
        self._markers.done(self._begun)

    def follow(self) -> None:
        """Wait as ``coordinate wait`` does."""
        from coordinate._following import Follower

        Follower(self._markers, "step", "1").wait(self._coordinator, _WITHIN)


class BareInotify(News):
    """The limit: a file is synced and renamed into a watched folder."""

    label = "bare inotify"

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)
        self._done = self.folder / name
        self._done.mkdir(exist_ok=True)
        libc = ctypes.CDLL(None)
        self._fd = libc.inotify_init1(0)
        libc.inotify_add_watch(self._fd, bytes(self._done), _MOVED_TO)

    def prepare(self) -> None:
        """Nothing to do."""

    def tell(self) -> None:
        """Write, sync, rename, sync."""
        draft = self._done / "draft"
        with draft.open("wb") as file:
            file.write(b"done")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._done / "done")

    def follow(self) -> None:
        """Wait for the event, then read."""
        os.read(self._fd, 4096)
        (self._done / "done").read_bytes()


class Audience(NamedTuple):
    """One process tells, the others follow."""

    kind: type[News]
    folder: str
    name: str

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        news = self.kind(self.folder, self.name)
        if member.number == 0:
            news.prepare()
            member.ready()
            member.wait_for_go()
            member.mark(0)
            news.tell()
        else:
            member.wait_for_the_first()
            member.ready()
            news.follow()
            member.mark(0)
        member.linger()
