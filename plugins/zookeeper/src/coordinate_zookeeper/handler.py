"""What kazoo runs on: of its three threads only the connection's, with a pulse and a bell that never blocks.

kazoo passes events and results on from two threads of their own, so that they may block. Ours never do, and each
change of threads costs more than the work: they are passed on by the connection's thread itself, in the order in which
the server told them. What an answer follows from has so been told before the answer is there.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Protocol

from kazoo.handlers.threading import SequentialThreadingHandler

from coordinate_zookeeper import tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.protocol.states import Callback

PULSE = 0.5
"""Seconds between looks at what has to be given back."""
log = logging.getLogger("coordinate")


class Source(Protocol):
    """What can be waited for."""

    def fileno(self) -> int:
        """Return its descriptor."""


class AtOnce:
    """Stands for a queue: what is handed over is done by whoever does so."""

    def put(self, work: Callable[[], object]) -> None:
        """Do it; an error must not end the connection."""
        try:
            work()
        except Exception:
            log.exception("what a connection to ZooKeeper told was not understood")


class Bell:
    """Both ends of what kazoo writes a byte to for each request, in the words of a socket.

    Its own pair of sockets holds 278 bytes: requests made by the connection's thread, which reads them, would make it
    wait for itself. This one counts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """The number must not be another file's when a late request rings."""
        self._fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def send(self, data: bytes) -> int:
        """Ring once for each byte; never blocks.

        Raises:
            OSError: it is closed.
        """
        with self._lock:
            os.eventfd_write(self._fd, len(data))
        return len(data)

    def recv(self, _: int) -> bytes:
        """Take one ring.

        Raises:
            OSError: there is none, or it is closed.
        """
        os.eventfd_read(self._fd)
        return b"\0"

    def close(self) -> None:
        """Close. Idempotent."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's handler, with a regular call from the connection's thread and bounded attempts to connect."""

    def __init__(self, pulse: Callable[[], None], patience: float) -> None:
        super().__init__()
        self._pulse = pulse
        self._patience = patience
        self.completion_queue = AtOnce()

    def start(self) -> None:
        """Begin, without a thread."""
        self._running = True

    def stop(self) -> None:
        """End."""
        self._running = False

    def dispatch_callback(self, callback: Callback) -> None:
        """Pass an event on."""
        self.completion_queue.put(lambda: callback.func(*callback.args))

    def create_socket_pair(self) -> tuple[Bell, Bell]:
        """Return what is rung, and what hears it: the same."""
        bell = Bell()
        return bell, bell

    def select(
        self, rlist: list[Source], wlist: list[Source], xlist: list[Source], timeout: float | None = None
    ) -> tuple[list[Source], list[Source], list[Source]]:
        """Wait as asked, in slices: what a slice ends with without an event is not the end of the wait.

        kazoo's own way opens a descriptor for each wait, of which a request takes five.
        """
        poller = select.poll()
        for source, mask in _masks(rlist, wlist).items():
            poller.register(source, mask)
        ends = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._pulse()
            left = max(0.0, ends - time.monotonic())
            found = dict(poller.poll(math.ceil(min(left, PULSE) * 1000)))
            if found or time.monotonic() >= ends:
                readable = [source for source in rlist if found.get(source.fileno(), 0) & ~select.POLLOUT]
                writable = [source for source in wlist if found.get(source.fileno(), 0) & ~select.POLLIN]
                return readable, writable, xlist[:0]

    def create_connection(self, *args: object, **options: object) -> object:
        """Connect: a host that swallows packets must not cost a whole session timeout."""
        given = options.get("timeout")
        if isinstance(given, float):
            options["timeout"] = min(given, self._patience)
        if not options.get("use_ssl"):
            return super().create_connection(*args, **options)
        # kazoo's own way to encrypt leaves a socket open after each handshake that fails.
        plain = super().create_connection(address=options["address"], timeout=options["timeout"])
        try:
            return tls.secured(plain, options)
        except BaseException:
            plain.close()
            raise


def _masks(rlist: list[Source], wlist: list[Source]) -> dict[int, int]:
    masks: dict[int, int] = {}
    for sources, mask in ((rlist, select.POLLIN), (wlist, select.POLLOUT)):
        for source in sources:
            masks[source.fileno()] = masks.get(source.fileno(), 0) | mask
    return masks
