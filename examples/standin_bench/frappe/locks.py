"""The framework's own file locks: plain flock, one second of patience, the file stays for ever."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 1.0


class LockTimeoutError(Exception):
    """Someone else holds the lock."""


@contextlib.contextmanager
def filelock(folder: Path, name: str) -> Iterator[None]:
    """Hold ``folder/name.lock``; not scaled by STANDIN_SCALE, since others race against this second."""
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, name)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, name: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                message = f"Failed to aquire lock: {name}"
                raise LockTimeoutError(message) from error
            time.sleep(0.02)
        else:
            return
