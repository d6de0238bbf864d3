"""Processor time of processes, and on which processors they run."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used."""
    # The kernel's own numbering of a process's clock, see clock_getcpuclockid(3); /proc counts in 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


@contextlib.contextmanager
def bound(pid: int, processors: tuple[int, int]) -> Iterator[None]:
    """Bind this process and another one to a processor each, with all threads that they have now."""
    pids = (os.getpid(), pid)
    before = [os.sched_getaffinity(each) for each in pids]
    try:
        for each, processor in zip(pids, processors, strict=True):
            _bind(each, {processor})
        yield
    finally:
        for each, mask in zip(pids, before, strict=True):
            _bind(each, mask)


def _bind(pid: int, processors: set[int]) -> None:
    for entry in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
            os.sched_setaffinity(int(entry.name), processors)
