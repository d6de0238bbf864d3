"""Programs that the tests of guarded children run, and the questions they ask about processes.

Run as a file it is one of the programs: ``python process_helpers.py PROGRAM ARGUMENT...``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from coordinate import _guard
from coordinate.process import GuardedChild, become_subreaper, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PATIENCE = 60.0
"""Seconds that a busy machine may take for what an idle one does at once."""


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Look every few milliseconds until the condition holds; say whether it did in time."""
    limit = now() + seconds
    while not condition():
        if now() > limit:
            return False
        time.sleep(0.002)
    return True


def alive(pid: int) -> bool:
    """Say whether a process exists and is not just waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def any_alive(pids: Iterable[int]) -> bool:
    """Say whether one of the processes is alive."""
    return any(alive(pid) for pid in pids)


def try_lock(fd: int) -> bool:
    """Take the lock on a file if it is free; say whether it was."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def program(name: str, *arguments: object) -> list[str]:
    """Return the command line of one of the programs below."""
    return [sys.executable, __file__, name, *map(str, arguments)]


def pids_in(folder: Path, count: int) -> list[int]:
    """Wait until so many processes have left their name in the folder, and return their ids."""
    assert eventually(lambda: len(list(folder.iterdir())) >= count), list(folder.iterdir())
    return [int(path.name) for path in folder.iterdir()]


def guardian_of(child: GuardedChild) -> int:
    """Return the process id of the guardian: the parent of the command."""
    return psutil.Process(child.pid).ppid()


def start_supervisor(folder: Path, **options: object) -> subprocess.Popen[bytes]:
    """Start the program `supervise`, in a process group of its own."""
    return subprocess.Popen(program("supervise", folder, json.dumps(options)), process_group=0)


def _sleep_for_ever(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    while True:
        signal.pause()


def _fork_sleeper(folder: Path, *, session: bool = False, daemon: bool = False) -> None:
    if os.fork() != 0:
        return
    if session or daemon:
        os.setsid()
    if daemon and os.fork() != 0:
        os._exit(0)
    _sleep_for_ever(folder)


def family(folder: str) -> None:
    """Be a command with a child, a child in its own session, and a daemon: four processes, all stubborn."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _fork_sleeper(Path(folder))
    _fork_sleeper(Path(folder), session=True)
    _fork_sleeper(Path(folder), daemon=True)
    _sleep_for_ever(Path(folder))


def leave(folder: str) -> None:
    """End with code 7 and leave a daemon behind, once that is there."""
    _fork_sleeper(Path(folder), daemon=True)
    pids_in(Path(folder), 1)
    sys.exit(7)


def multiply(folder: str, limit: str) -> None:
    """Fork continuously: each process starts the next, half of them sessions; all are stubborn."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for generation in range(int(limit)):
        (Path(folder) / str(os.getpid())).touch()
        if os.fork() != 0:
            break
        if generation % 2:
            os.setsid()
    _sleep_for_ever(Path(folder))


def stubborn(folder: str) -> None:
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _sleep_for_ever(Path(folder))


def describe() -> None:
    """Print what this process was given: environment, arguments, descriptors, signals and session, as JSON."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    listing = os.open("/proc/self/fd", os.O_RDONLY)
    names = os.listdir(listing)  # noqa: PTH208 - an open folder, to know and leave out its own number
    fds = [int(name) for name in names if int(name) != listing]
    facts = {
        "environment": Path("/proc/self/environ").read_bytes().decode("latin-1"),
        "fds": sorted(fd for fd in fds if _is_open(fd)),
        "ignored": int(status["SigIgn"], 16),
        "blocked": int(status["SigBlk"], 16),
        "leads_session": os.getsid(0) == os.getpid() == os.getpgrp(),
        "cwd": str(Path.cwd()),
    }
    os.write(1, json.dumps(facts).encode())


def _is_open(fd: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(fd)
        return True
    return False


def _shorten(child: GuardedChild, note: Path) -> None:
    deadline = now() + 0.5
    child.extend(deadline)
    note.write_text(str(deadline))


def supervise(folder: str, text: str) -> None:
    """Guard a family, and wait for signals; options: lifetime, fork, lock, subreaper, result, guardian, shorten."""
    options = json.loads(text)
    _guard.__file__ = options.get("guardian", _guard.__file__)
    if options.get("subreaper"):
        become_subreaper()
    fds = []
    if path := options.get("lock"):
        fds = [os.open(path, os.O_RDWR | os.O_CREAT)]
        fcntl.flock(fds[0], fcntl.LOCK_EX)
    child = GuardedChild(program("family", folder), deadline=now() + options["lifetime"], hold_fds=fds, unlock_fds=fds)
    if note := options.get("shorten"):
        signal.signal(signal.SIGUSR1, lambda *_: _shorten(child, Path(note)))
    if path := options.get("fork"):
        copy = os.fork()
        Path(path).write_text(str(copy or os.getpid()))
    if path := options.get("result"):
        Path(path).write_text(str(child.wait()))
    while True:
        signal.pause()


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {
        "family": family,
        "leave": leave,
        "multiply": multiply,
        "stubborn": stubborn,
        "describe": describe,
        "supervise": supervise,
    }
    programs[sys.argv[1]](*sys.argv[2:])
