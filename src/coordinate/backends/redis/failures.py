"""What driver and server say, put into this library's errors: what was tried, where, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import exceptions as driver

from coordinate.errors import BackendUnavailable, CorruptRecord

if TYPE_CHECKING:
    from coordinate.errors import CoordinateError
    from coordinate.url import StoreUrl

DRIVER_ERRORS = (driver.RedisError, OSError, UnicodeError)
"""Everything that talking to a server may raise; a host name that cannot be encoded is a UnicodeError."""


class NotReplicated(Exception):
    """Too few replicas confirmed a write in time; it stands on the primary."""


class NoPrimary(driver.ConnectionError):
    """Nobody named a server that is a primary; the message says who said what."""


def was_refused(error: Exception) -> bool:
    """Return whether nobody listened at the address, so that no request can have been executed."""
    return isinstance(error.__context__, ConnectionRefusedError)


_RIGHTS = (
    "the user needs the keys and channels of the namespace and the commands of scripting and pub/sub: "
    "ACL SETUSER <user> ~<namespace>:* &<namespace>:* +@all -@admin -@dangerous +info"
)

# The first class that fits decides: subclasses come before their bases.
_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (NoPrimary, "check the Sentinels and the service name in the URL; during a failover it takes some seconds"),
    (driver.AuthenticationError, "check user name and password in the URL"),
    (driver.NoPermissionError, _RIGHTS),
    (driver.BusyLoadingError, "the server is loading its data; it answers when that is done"),
    (driver.ReadOnlyError, "this is a replica: name the primary in the URL"),
    (driver.OutOfMemoryError, "the server has no memory left: raise maxmemory"),
    (driver.TimeoutError, "no answer in time; it may have happened, and asking again is safe"),
    (driver.ConnectionError, "check that the server runs and that this address reaches it"),
    (OSError, "check that the server runs and that this address reaches it"),
    (UnicodeError, "check the host name in the URL"),
)
_BY_WORD = (
    ("FLOOR", "set the clock of the Redis server, or find out why the marker store holds so great a token"),
    ("MISCONF", "the server cannot save to its disk and refuses writes: see its log"),
    (
        "WRONGTYPE",
        "something else uses a key of this namespace: set another COORDINATE_NAMESPACE or delete the key",
    ),
    ("unknown command", "the server is too old, or the command was renamed: Redis 6.2 or later is needed"),
    ("BUSY", "a script of somebody else blocks the server: SCRIPT KILL ends it"),
    (
        "NOREPLICAS",
        "too few replicas are connected (min-replicas-to-write): the server refuses writes until they are",
    ),
)
_OTHERWISE = "see the server's log"


def failure(what: str, url: StoreUrl, error: Exception) -> CoordinateError:
    """Return our error for a driver's; the caller raises it ``from`` that one."""
    said = str(error) or type(error).__name__
    if url.password:
        # A server that knows no AUTH repeats what it did not understand.
        said = said.replace(url.password, "***")
    message = f"{what} on {url} failed: {said}"
    if said.startswith("CORRUPT"):
        return CorruptRecord(f"{message}; delete the keys of this name")
    return BackendUnavailable(f"{message}; {_advice(error, said)}")


def _advice(error: Exception, said: str) -> str:
    for word, advice in _BY_WORD:
        if word in said:
            return advice
    return next((advice for kind, advice in _BY_CLASS if isinstance(error, kind)), _OTHERWISE)
