"""Clients of a fresh folder, in this process and in others."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate.backend import StoreSettings
from coordinate.url import parse
from coordinate_filelock.backend import FileBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Worker:
    """One other process; see ``worker.py``."""

    def __init__(self, url: str) -> None:
        self.channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("worker.py")), url, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                text=True,
            )
        assert self.answer() == "ready"

    def tell(self, *words: object) -> None:
        """Say what to do without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> object:
        """Wait for the next answer."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, *words: object) -> object:
        """Say what to do and return the answer."""
        self.tell(*words)
        return self.answer()

    def descriptors(self, name: str) -> list[int]:
        """Become the guardian of a lease: return duplicates of its descriptors."""
        assert self.ask("hand_over", name) == 1
        return socket.recv_fds(self.channel, 1, 4)[1]

    def kill(self) -> None:
        """End it at once, as the kernel's memory killer would."""
        self.process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Clean up."""
        self.process.kill()
        self.process.communicate()
        self.channel.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the store; it does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def client(folder: Path) -> Callable[[], FileBackend]:
    """Open one more client in this process."""
    return lambda: FileBackend.open(parse(f"file://{folder}"), StoreSettings(namespace="test"))


@pytest.fixture
def backend(client: Callable[[], FileBackend]) -> FileBackend:
    """Return a client."""
    return client()


@pytest.fixture
def worker(folder: Path) -> Iterator[Callable[[], Worker]]:
    """Start one more process with a client."""
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(f"file://{folder}"))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the order of writes that have to do with durability, as it grows."""
    import os

    calls: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            what = ""
            if name == "fsync":
                what = " folder" if Path(f"/proc/self/fd/{args[0]}").is_dir() else " file"
            calls.append(name + what)
            return real(*args, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "rename", "link"):
        noted(name)
    return calls
