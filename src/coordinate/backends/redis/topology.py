"""From URL to server: connections, requests and replies, and nothing about leases.

`Standalone` is one server behind one address. Where a name lives on which node is a question only this module
answers (`Standalone.batches`, ``key``), so that Sentinel and Cluster can stand beside it.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast

from redis.backoff import NoBackoff
from redis.connection import Connection, UnixDomainSocketConnection
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from coordinate.backends.redis.failures import DRIVER_ERRORS, failure
from coordinate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coordinate.backend import StoreSettings
    from coordinate.backends.redis.scripts import Script
    from coordinate.url import StoreUrl

Reply: TypeAlias = "bytes | int | list[Reply] | None"
"""What a server answers, undecoded."""

_OPTIONS = {"redis": ("timeout", "client_name"), "unix": ("timeout", "client_name", "db")}
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer that vanished without a word is noticed after 25 s, also by a connection that only listens."""
_SPARE = 16
"""Connections kept open for the next request; more are opened while more threads ask at once."""
_BATCH = 500
"""Leases in one request: a script blocks the server while it runs, this many for about 2 ms."""
_PAGE = 1000
_CLIENT_NAME = re.compile(r"[!-~]{1,64}")


class Wire(Protocol):
    """What is used of redis-py's connections: the layer below its pool and client, without their retries."""

    pid: int
    _sock: socket.socket | None

    def connect(self) -> None:
        """Open the socket, authenticate, select the database."""

    def disconnect(self) -> None:
        """Close the socket; in a forked child without telling the server."""

    def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None:  # noqa: FBT001, FBT002 -- theirs
        """Write a request."""

    def read_response(self) -> Reply:
        """Return the next reply, or raise the error that it is."""

    def can_read(self, timeout: float = 0) -> bool:
        """Return whether there is something to read; raise if the peer has closed."""


class Address(NamedTuple):
    """Where a server is and how to greet it, out of a URL."""

    place: str
    """``host:port`` or the path of the socket."""
    db: int
    timeout: float
    connect: Callable[[], Wire]


def address_of(url: StoreUrl, settings: StoreSettings) -> Address:
    """Return what a ``redis://`` or ``unix://`` URL means.

    Raises:
        ConfigError: an option, database or host part that cannot work.
    """
    url.check_options(_OPTIONS[url.scheme])
    timeout = _timeout(url, settings)
    options: dict[str, object] = {
        "username": url.username,
        "password": url.password,
        "client_name": _client_name(url),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # A retry is policy, which is the core's; and a release that is repeated unseen would say "not ours".
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
        "decode_responses": False,
    }
    if url.scheme == "unix":
        if url.hosts or url.path in {"", "/"}:
            message = f"{url}: a socket's path is absolute: unix:///run/redis.sock"
            raise ConfigError(message)
        db = _database(url, url.options.get("db", ""))
        return Address(url.path, db, timeout, _dialler(UnixDomainSocketConnection, path=url.path, db=db, **options))
    if len(url.hosts) > 1:
        message = f"{url}: redis:// takes one host"
        raise ConfigError(message)
    db = _database(url, url.path.strip("/"))
    host, port = (url.hosts[0].name, url.hosts[0].port or 6379) if url.hosts else ("localhost", 6379)
    options |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    place = f"[{host}]:{port}" if ":" in host else f"{host.lower()}:{port}"
    return Address(place, db, timeout, _dialler(Connection, host=host, port=port, db=db, **options))


def _dialler(kind: Callable[..., object], **options: object) -> Callable[[], Wire]:
    def dial() -> Wire:
        wire = cast(Wire, kind(**options))
        wire.connect()
        return wire

    return dial


def _keepalive() -> dict[int, int]:
    # macOS calls the first of them differently; it then keeps its own default.
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


def _timeout(url: StoreUrl, settings: StoreSettings) -> float:
    text = url.options.get("timeout")
    if text is None:
        return settings.timeout
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < 3600:  # noqa: PLR2004 -- an hour; also refuses nan and inf
        message = f"{url}: timeout={text!r} is not a number of seconds between 0 and 3600"
        raise ConfigError(message)
    return timeout


def _client_name(url: StoreUrl) -> str:
    name = url.options.get("client_name", "coordinate")
    if not _CLIENT_NAME.fullmatch(name):
        message = f"{url}: client_name is 1 to 64 printable ASCII characters without spaces"
        raise ConfigError(message)
    return name


def _database(url: StoreUrl, text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and int(text) < 2**31):
        message = f"{url}: {text!r} is not the number of a database, for example redis://host:6379/0"
        raise ConfigError(message)
    return int(text or 0)


def pack(words: Sequence[bytes]) -> bytes:
    """Return a request in the server's protocol."""
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%b" % (len(words), b"".join(parts))


class Standalone:
    """One server. Any number of threads may ask at once; each request has a connection to itself.

    Every request is sent once: an error says that it may or may not have happened.
    """

    def __init__(self, url: StoreUrl, settings: StoreSettings) -> None:
        self.url = url
        self.address = address_of(url, settings)
        self._spare: list[Wire] = []
        self._pid = os.getpid()

    def run(self, what: str, script: Script, keys: Sequence[bytes], args: Sequence[bytes] = ()) -> Reply:
        """Return a script's reply; ``what`` is named in errors.

        Raises:
            BackendUnavailable: no usable answer.
            CorruptRecord: the script found a record that it cannot understand.
        """
        tail = (b"%d" % len(keys), *keys, *args)
        try:
            try:
                return self._exchange(pack((b"EVALSHA", script.sha, *tail)))
            except NoScriptError:
                return self._exchange(pack((b"EVAL", script.source, *tail)))
        except DRIVER_ERRORS as error:
            raise failure(what, self.url, error) from error

    def ask(self, what: str, *words: bytes) -> Reply:
        """Return the reply to a plain command.

        Raises:
            BackendUnavailable: no usable answer.
        """
        try:
            return self._exchange(pack(words))
        except DRIVER_ERRORS as error:
            raise failure(what, self.url, error) from error

    def scan(self, what: str, pattern: bytes) -> set[bytes]:
        """Return the keys that fit a glob, in many short requests."""
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            reply = self.ask(what, b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _PAGE)
            cursor, page = cast("tuple[bytes, list[bytes]]", reply)
            found.update(page)
            if cursor == b"0":
                return found

    def batches(self, keys: Sequence[bytes]) -> Iterator[list[int]]:
        """Yield the indexes of keys that one request may hold together."""
        for start in range(0, len(keys), _BATCH):
            yield list(range(start, min(start + _BATCH, len(keys))))

    def dial(self, what: str) -> Wire:
        """Return a connection of one's own, for waiting.

        Raises:
            BackendUnavailable: it cannot be had.
        """
        try:
            return self.address.connect()
        except DRIVER_ERRORS as error:
            raise failure(what, self.url, error) from error

    def close(self) -> None:
        """Close what is not in use; what is, is closed by its last user. Idempotent."""
        self._drop_spare()

    def _exchange(self, request: bytes) -> Reply:
        wire = self._take()
        answered = False
        try:
            wire.send_packed_command([request], check_health=False)
            reply = wire.read_response()
            answered = True
        except ResponseError:
            answered = True
            raise
        finally:
            # Also for an interrupt between the two: the reply to this request must never answer the next one.
            if answered and len(self._spare) < _SPARE:
                self._spare.append(wire)
            else:
                wire.disconnect()
                if not answered:
                    self._drop_spare()
        return reply

    def _take(self) -> Wire:
        if self._pid != os.getpid():
            # A forked child shares its parent's sockets: it must not write a byte to them.
            self._pid = os.getpid()
            self._drop_spare()
        while self._spare:
            try:
                wire = self._spare.pop()
            except IndexError:  # another thread was faster
                break
            if _silent(wire):
                return wire
            wire.disconnect()
        return self.address.connect()

    def _drop_spare(self) -> None:
        # A broken connection is rarely the only one: the server restarted or the way to it changed.
        spare, self._spare = self._spare, []
        for wire in spare:
            wire.disconnect()


def _silent(wire: Wire) -> bool:
    """Return whether the peer has neither closed nor said anything unasked."""
    try:
        return not wire.can_read(timeout=0)
    except DRIVER_ERRORS:
        return False
