"""Opening connections in time, also where a name server does not answer.

The system's look-up of a host name takes no time limit and cannot be stopped; with a name server that is gone it lasts
many seconds, for which nobody would renew a lease or tell that it is lost. So a connection to a *name* is opened in a
thread, and left to that thread when its time is over. Addresses need no look-up, and no thread.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from redis import exceptions as driver

from coordinate._clock import SYSTEM

if TYPE_CHECKING:
    from coordinate.backends.redis.wires import Wire

MOST = 4
"""Attempts to one host that may go on after nobody waits for them: further ones would fail like these."""
FORGOTTEN = 60.0
"""Seconds after which such an attempt does not count any more: a look-up may hang for ever, while others work again."""
HUNG = 64
"""Attempts that may hang for ever: each is a thread."""


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
        self.host = host
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
            message = f"no connection to {self.host}: {error}"
            raise driver.ConnectionError(message) from error

    def leave(self) -> bool:
        """Return False if it is over; else it closes itself what it opens from now on."""
        with self._lock:
            self._left = not self.over.is_set()
            if self._left:
                _LEFT.add(self)
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
                _LEFT.discard(self)


class _Left:
    """The attempts that are under way although nobody waits for them any more, by host: since when."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget them: their threads, of which one may hold the lock, do not exist in a forked child."""
        self._lock = threading.Lock()
        self._since: dict[_Attempt, float] = {}

    def number(self, host: str) -> int:
        """Return how many there are that still count."""
        with self._lock:
            since = [at for attempt, at in self._since.items() if attempt.host == host]
        return MOST if len(since) >= HUNG else sum(SYSTEM.now() - at < FORGOTTEN for at in since)

    def add(self, attempt: _Attempt) -> None:
        """Note one more."""
        with self._lock:
            self._since[attempt] = SYSTEM.now()

    def discard(self, attempt: _Attempt) -> None:
        """Note that it has ended."""
        with self._lock:
            self._since.pop(attempt, None)


_LEFT = _Left()
os.register_at_fork(after_in_child=_LEFT.reset)
