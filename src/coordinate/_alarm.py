"""A descriptor that becomes readable at an instant on CLOCK_BOOTTIME: it counts suspend, which waits do not.

Python has this only since 3.13.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time

_ABSOLUTE = 1
_NANO = 10**9
_LONG = 8
"""Bytes of a C long where the kernel's and the library's idea of a time are certainly the same."""


class Alarm:
    """One timer.

    Raises:
        OSError: this system has none of the kind.
    """

    def __init__(self) -> None:
        # Only who waits for long pays for it.
        import ctypes  # noqa: PLC0415

        if sys.platform != "linux" or ctypes.sizeof(ctypes.c_long) < _LONG:
            message = "no timer of this kind"
            raise OSError(message)
        library = ctypes.CDLL(None, use_errno=True)
        self._set = library.timerfd_settime
        self._four = ctypes.c_long * 4
        self._fd = int(library.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def set(self, at: float) -> bool:
        """Ring at an instant, never before it; infinity for never. False: it will not ring, do not rely on it."""
        nanoseconds = math.ceil(at * _NANO) if at < math.inf else 0
        when = self._four(0, 0, nanoseconds // _NANO, nanoseconds % _NANO)
        return int(self._set(self._fd, _ABSOLUTE, when, None)) == 0

    def close(self) -> None:
        """Give the descriptor back."""
        with contextlib.suppress(OSError):
            os.close(self._fd)


def alarm() -> Alarm | None:
    """Return a timer; None where there is none."""
    try:
        return Alarm()
    except (ImportError, OSError, AttributeError):
        return None
