"""Connections to one Redis server: redis-py's connection layer, without its pool, client and retries."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from coordinate.backends.redis.credentials import Login
from coordinate.backends.redis.dialling import Dial, connect
from coordinate.backends.redis.failures import conceal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coordinate.url import Host

Reply: TypeAlias = "bytes | int | list[Reply] | None"
"""What a server answers, undecoded."""

DEFAULT_PORT = 6379
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer that vanished without a word is noticed after 25 s, also by a connection that only listens."""


class Wire(Protocol):
    """What is used of redis-py's connections."""

    pid: int
    socket_timeout: float | None
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
    """Where one server is and how to greet it."""

    place: str
    """``host:port`` or the path of the socket."""
    connect: Callable[[], Wire]


def tcp(host: Host, greeting: Mapping[str, object]) -> Address:
    """Return a server reached by TCP, encrypted where the greeting has TLS options.

    Args:
        host: its name; without a port, 6379.
        greeting: how to talk to it: redis-py's keywords and ``credentials``, a function that returns what a new
            connection authenticates with; see `coordinate.backends.redis.options`.
    """
    port = host.port or DEFAULT_PORT
    name = host.name.lower()
    kind = SSLConnection if any(key.startswith("ssl_") for key in greeting) else Connection
    options = {"socket_keepalive": True, "socket_keepalive_options": _keepalive(), **_NO_RETRIES, **greeting}
    place = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    dial = Dial(host.name, cast(float, greeting["socket_connect_timeout"]))
    return Address(place, _dialler(kind, {"host": host.name, "port": port, **options}, dial.open))


def unix(path: str, greeting: Mapping[str, object]) -> Address:
    """Return a server reached by a unix socket."""
    return Address(path, _dialler(UnixDomainSocketConnection, {"path": path, **_NO_RETRIES, **greeting}, connect))


# A retry is policy, which is the core's; and a release that is repeated unseen would say "not ours".
_NO_RETRIES: Mapping[str, object] = {
    "retry": Retry(NoBackoff(), 0),
    "health_check_interval": 0,
    "protocol": 2,
    "decode_responses": False,
}


def _keepalive() -> dict[int, int]:
    # macOS calls the first of them differently; it then keeps its own default.
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


def _dialler(
    kind: Callable[..., object], options: dict[str, object], opened: Callable[[Wire], None]
) -> Callable[[], Wire]:
    credentials = cast("Callable[[], Login]", options.pop("credentials", _nobody))

    def dial() -> Wire:
        login = credentials()
        wire = cast(Wire, kind(**{**login._asdict(), **options}))
        try:
            opened(wire)
        except BaseException as error:
            # A server that knows no AUTH repeats what it did not understand.
            conceal(error, login.password or cast("str | None", options.get("password")))
            raise
        return wire

    return dial


def _nobody() -> Login:
    return Login(None, None)


class Words(NamedTuple):
    """A part of a request, in the server's protocol; what is sent again and again is put into it once."""

    number: int
    data: bytes


def words(*parts: bytes) -> Words:
    """Return a part of a request."""
    return Words(len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))


def request(*parts: Words) -> bytes:
    """Return a whole request."""
    return b"*%d\r\n%b" % (sum(part.number for part in parts), b"".join([part.data for part in parts]))


def pack(parts: Sequence[bytes]) -> bytes:
    """Return a whole request out of single words."""
    return request(words(*parts))


def number_of(wire: Wire) -> int:
    """Return the socket's descriptor; the driver has no public way to wait for it together with others.

    Raises:
        OSError: the connection is closed.
    """
    sock = wire._sock  # noqa: SLF001 -- see above
    if sock is None:
        message = "the connection was closed while it was opened"
        raise OSError(message)
    return sock.fileno()


def sever(wire: Wire) -> None:
    """End a connection that another thread may be waiting on: it becomes readable, and says that it is over."""
    sock = wire._sock  # noqa: SLF001 -- as above
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
