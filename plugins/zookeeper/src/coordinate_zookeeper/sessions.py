"""All sessions of one backend: one for each length of lease, opened when first needed, anew in a forked child."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from coordinate_zookeeper.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate_zookeeper.address import Address

GENERAL = 10.0
"""Length in seconds of a session that only reads, waits for markers, or writes them."""


class Sessions:
    """The sessions of one process. However many leases it holds, those of one length share a session.

    Args:
        address: where to, and as whom.
        pulse: called with a session twice a second while it is connected, from its own thread.
    """

    def __init__(self, address: Address, pulse: Callable[[Session], None]) -> None:
        self.address = address
        self._pulse = pulse
        self._lock = threading.Lock()
        self._by_length: dict[int, Session] = {}
        self._closed = False

    def of(self, ttl: float) -> Session:
        """Return the session for leases of one length; not connected yet, perhaps."""
        return self._get(max(1, round(ttl * 1000)))

    def any(self) -> Session:
        """Return a session for requests that belong to no lease: a connected one if there is any.

        The longest first: on a busy machine a short one is suspended for a missed ping, and what was asked is lost.
        """
        with self._lock:
            known = [self._by_length[length] for length in sorted(self._by_length, reverse=True)]
        for session in known:
            if session.connected:
                return session
        return known[0] if known else self._get(round(GENERAL * 1000))

    def _get(self, milliseconds: int) -> Session:
        with self._lock:
            session = self._by_length.get(milliseconds)
            if session is None:
                session = self._by_length[milliseconds] = Session(self.address, milliseconds / 1000, self._pulse)
                if self._closed:
                    session.close(keep=True)
            return session

    def close(self, keep: Callable[[Session], bool]) -> None:
        """Close all; those for which ``keep`` says so are left to expire."""
        with self._lock:
            self._closed = True
            known = list(self._by_length.values())
        for session in known:
            session.close(keep=keep(session))
