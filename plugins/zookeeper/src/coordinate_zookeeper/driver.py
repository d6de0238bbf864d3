"""kazoo with what it lacks for leases: the granted timeout, a pulse, an end that leaves the session to expire.

kazoo offers none of the three, so this module and `handler` touch its insides; the distribution pins its minor release.
Its log lines are kept here, the last one for error messages, and never reach a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from typing import TYPE_CHECKING

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionDropped
from kazoo.protocol.connection import ConnectionHandler
from kazoo.retry import KazooRetry

from coordinate_zookeeper.handler import PULSE, Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from kazoo.protocol.states import WatchedEvent

    from coordinate_zookeeper.address import Address

_RECONNECT = {"max_tries": -1, "delay": 0.1, "backoff": 1.5, "max_delay": 1.0, "max_jitter": 0.4}

# kazoo reports errors of its own here, too; without any handler Python prints them to stderr.
logging.getLogger("kazoo").addHandler(logging.NullHandler())


class LastWords(logging.Handler):
    """Keeps the last warning of one client."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line; its exception, if any, too."""
        with contextlib.suppress(Exception):
            error = record.exc_info[1] if record.exc_info else None
            self.text = record.getMessage() + (f": {error}" if error else "")


class Connection(ConnectionHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's connection that tells when it is authenticated, with which session timeout, and when nobody answers."""

    _unheard_since: float | None = None
    """Since when we wait for a server's first word after a request."""

    def insist(self, patience: float) -> None:
        """Drop a connection on which a request waits for any word of the server for longer than ``patience`` seconds.

        kazoo takes what it sends for a sign of life, and pings only if it sends nothing: under a program that keeps
        asking, a server that hangs with its connections open would never be left.

        Raises:
            ConnectionDropped: for kazoo's loop, which goes to the next server.
        """
        since = self._unheard_since
        if since is not None and time.monotonic() - since > patience:
            self._unheard_since = None
            message = f"no word for {patience:g} s, although something was asked"
            raise ConnectionDropped(message)

    def _send_request(self, read_timeout: float, connect_timeout: float) -> None:
        super()._send_request(read_timeout, connect_timeout)
        if self._unheard_since is None and self.client._pending:  # noqa: SLF001 -- kazoo tells it to nobody
            self._unheard_since = time.monotonic()

    def _read_socket(self, read_timeout: float) -> object:
        self._unheard_since = None
        found = super()._read_socket(read_timeout)
        if self.client._pending:  # noqa: SLF001 -- as above
            self._unheard_since = time.monotonic()
        return found

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        # The handshake, too: kazoo alone waits a whole session timeout for a server that accepts and says nothing.
        self._unheard_since = time.monotonic()
        try:
            read_timeout, connect_timeout = super()._connect(host, hostip, port)
        finally:
            self._unheard_since = None
        # kazoo waits two thirds of what the server granted for an answer, and keeps nothing else of it.
        self.client.welcome(round(read_timeout * 1.5) / 1000)
        return read_timeout, connect_timeout

    def cut(self) -> None:
        """Break the connection without a word to the server."""
        wire = self._socket
        if wire is not None:
            with contextlib.suppress(OSError, ValueError):
                wire.shutdown(socket.SHUT_RDWR)


class Driver(KazooClient):  # type: ignore[misc]  # kazoo has no types
    """One session with the ensemble.

    Args:
        address: where to, and as whom.
        length: the session timeout to ask for, in seconds.
        welcome: called with the granted session timeout when a connection is ready for requests.
        pulse: called at least twice a second from the connection's thread; must not block.
    """

    def __init__(
        self, address: Address, length: float, welcome: Callable[[float], None], pulse: Callable[[], None]
    ) -> None:
        self._beat = pulse
        self._beat_at = 0.0
        self._patience = max(2 * PULSE, 2 * address.timeout)
        self.last_words = LastWords()
        logger = logging.Logger("kazoo", logging.WARNING)  # noqa: LOG001 -- outside the tree: nobody's terminal
        logger.addHandler(self.last_words)
        super().__init__(
            hosts=address.hosts,
            timeout=length,
            handler=Handler(self._pulse, address.timeout),
            connection_retry=KazooRetry(**_RECONNECT),
            default_acl=address.acl,
            logger=logger,
            **address.access,
        )
        self.welcome = welcome
        former: ConnectionHandler = self._connection
        self._connection: Connection = Connection(self, former.retry_sleeper, logger, former.sasl_options)

    def _pulse(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at:
            # By the clock, not once for each packet: whoever is called looks over all that this process has.
            self._beat_at = now + PULSE
            self._beat()
        connection = self._connection
        if isinstance(connection, Connection):
            connection.insist(self._patience)

    def unwatch(self, path: str, told: Callable[[WatchedEvent], None]) -> None:
        """Forget a watcher; kazoo would keep it until the node changes, which may be never."""
        self._data_watchers.get(self.chroot + path, set()).discard(told)

    def end(self, timeout: float) -> None:
        """Close the session: its nodes go at once. What does not end in time is cut."""
        worker = self.handler.spawn(self._end)
        worker.join(timeout)
        if worker.is_alive():
            self._connection.cut()
            worker.join(timeout)

    def abandon(self, timeout: float) -> None:
        """Disconnect and leave the session to expire, and its nodes with it."""
        self._stopped.set()
        self._connection.cut()
        self._connection.connection_stopped.wait(timeout)
        worker = self.handler.spawn(self._tidy)
        worker.join(timeout)

    def _end(self) -> None:
        with contextlib.suppress(Exception):  # it may fail in any way; the process goes on without it
            self.stop()
            self.close()

    def _tidy(self) -> None:
        with contextlib.suppress(Exception):  # as above
            self._safe_close()
            self.close()
