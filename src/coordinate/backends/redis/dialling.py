"""Opening connections in time, also where a name server does not answer.

The system's look-up of a host name takes no time limit and cannot be stopped; with a name server that is gone it lasts
many seconds, for which nobody would renew a lease or tell that it is lost. So a connection to a *name* is opened in a
thread, and left to that thread when its time is over. Addresses need no look-up, and no thread.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

from redis import exceptions as driver

if TYPE_CHECKING:
    from coordinate.backends.redis.wires import Wire

MOST = 4
"""Attempts to one host that may go on after nobody waits for them: further ones would fail like these."""


class Dial:
    """Opens connections to one host.

    Args:
        host: its name or address.
        patience: seconds for look-up, connection and greeting together, if it is a name.
    """

    def __init__(self, host: str, patience: float) -> None:
        self._host = host
        self._patience = patience
        self._by_name = not is_address(host)

    def open(self, wire: Wire) -> None:
        """Open a connection; closed again if that fails.

        Raises:
            redis.RedisError, OSError, UnicodeError: it failed; `redis.TimeoutError` if it took too long.
        """
        if not self._by_name:
            connect(wire)
            return
        if _LEFT.number(self._host) >= MOST:
            message = f"Timeout connecting to server: {MOST} earlier look-ups of {self._host} have not ended yet"
            raise driver.TimeoutError(message)
        attempt = _Attempt(self._host, wire)
        try:
            attempt.start()
            attempt.over.wait(self._patience)
        except BaseException:
            if not attempt.leave():
                wire.disconnect()
            raise
        if attempt.leave():
            message = f"Timeout connecting to server: no connection to {self._host} within {self._patience:g} s"
            raise driver.TimeoutError(message)
        if attempt.error is not None:
            raise attempt.error


def is_address(host: str) -> bool:
    """Return whether a host is given by its address, which needs no look-up."""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, UnicodeError):
        return ":" in host
    return True


def connect(wire: Wire) -> None:
    """Open a connection; one whose greeting failed half-way still has its socket, which is closed."""
    try:
        wire.connect()
    except BaseException:
        wire.disconnect()
        raise


class _Attempt:
    """One connection that is opened in a thread of its own."""

    def __init__(self, host: str, wire: Wire) -> None:
        self.over = threading.Event()
        self.error: Exception | None = None
        self._host = host
        self._wire = wire
        self._lock = threading.Lock()
        self._left = False

    def start(self) -> None:
        """Begin.

        Raises:
            redis.ConnectionError: there is no room for another thread.
        """
        thread = threading.Thread(target=self._run, name="coordinate-dial", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.over.set()
            message = f"no connection to {self._host}: {error}"
            raise driver.ConnectionError(message) from error

    def leave(self) -> bool:
        """Return False if it is over; else it closes itself what it opens from now on."""
        with self._lock:
            self._left = not self.over.is_set()
            if self._left:
                _LEFT.note(self._host, 1)
            return self._left

    def _run(self) -> None:
        try:
            connect(self._wire)
        except Exception as error:  # noqa: BLE001 -- raised where it is waited for
            self.error = error
        with self._lock:
            self.over.set()
            if self._left:
                self._wire.disconnect()
                _LEFT.note(self._host, -1)


class _Left:
    """How many attempts are under way that nobody waits for any more, by host."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget them: their threads, of which one may hold the lock, do not exist in a forked child."""
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()

    def number(self, host: str) -> int:
        """Return how many there are."""
        return self._numbers[host]

    def note(self, host: str, change: int) -> None:
        """Count one more or one fewer."""
        with self._lock:
            self._numbers[host] += change
            if not self._numbers[host]:
                del self._numbers[host]


_LEFT = _Left()
os.register_at_fork(after_in_child=_LEFT.reset)
