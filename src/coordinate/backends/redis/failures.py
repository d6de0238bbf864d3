"""What driver and server say, put into this library's errors: what was tried, where, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import exceptions as driver

from coordinate.errors import BackendUnavailable, CorruptRecord, CredentialsUnavailable

if TYPE_CHECKING:
    from coordinate.errors import CoordinateError
    from coordinate.url import StoreUrl

DRIVER_ERRORS = (driver.RedisError, OSError, UnicodeError)
"""Everything that talking to a server may raise; a host name that cannot be encoded is a UnicodeError."""


_MOMENTARY = (
    driver.OutOfMemoryError,
    driver.ReadOnlyError,
    driver.MasterDownError,
    driver.ClusterError,
    driver.TryAgainError,
    driver.AskError,
)


class NotReplicated(Exception):
    """Too few replicas confirmed a write in time; it stands on the primary."""


class NoPrimary(driver.ConnectionError):
    """Nobody named a server that is a primary; the message says who said what."""


def was_refused(error: Exception) -> bool:
    """Return whether nobody listened at the address, so that no request can have been executed."""
    return isinstance(error.__context__, ConnectionRefusedError)


def is_momentary(error: Exception) -> bool:
    """Return whether a server refuses for a reason that passes: it says nothing of what it can do, or hides."""
    return isinstance(error, _MOMENTARY) or str(error).startswith(("BUSY", "MISCONF", "NOREPLICAS"))


def lacks_replicas(error: Exception) -> bool:
    """Return whether a server takes no writes for want of replicas: it may be cut off, and deposed already."""
    return "NOREPLICAS" in str(error)


class NoCredentials(driver.RedisError):
    """The credential provider failed; nothing was sent."""


RIGHTS = (
    "~<namespace>:* &<namespace>:* +eval +evalsha +ping +info +scan +wait +time +publish +subscribe +unsubscribe"
    " +exists +del +pexpire +pttl +hget +hset +hmget +hdel +hgetall +hexists +zadd +zrem +zscore +zrange +zpopmin"
    " +client|setname"
)
"""What a user of the server needs: commands inside scripts are checked, too. SELECT besides for other databases."""

_RIGHTS = f"the user lacks a right; it needs: ACL SETUSER <user> {RIGHTS}"

# The first class that fits decides: subclasses come before their bases.
_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (NoPrimary, "check the Sentinels and the service name in the URL; during a failover it takes some seconds"),
    (driver.AuthenticationError, "check user name and password in the URL"),
    (driver.NoPermissionError, _RIGHTS),
    (driver.BusyLoadingError, "the server is loading its data; it answers when that is done"),
    (driver.TryAgainError, "the keys of this name are moving between servers; they are together again in a moment"),
    (driver.ReadOnlyError, "this is a replica: name the primary in the URL"),
    (driver.MovedError, "this server is a node of a Redis Cluster: use redis+cluster://"),
    (driver.AskError, "this server is a node of a Redis Cluster: use redis+cluster://"),
    (driver.MasterDownError, "this is a replica that has lost its primary: name the primary in the URL"),
    (driver.ClusterDownError, "the Redis Cluster has no primary for some of its slots: see CLUSTER INFO"),
    (driver.TimeoutError, "no answer in time; it may have happened, and asking again is safe"),
    (driver.ConnectionError, "check that the server runs and that this address reaches it"),
    (OSError, "check that the server runs and that this address reaches it"),
    (UnicodeError, "check the host name in the URL"),
)
_BY_WORD = (
    ("look-ups of", "check the name server: it does not answer"),
    ("new thread", "there is no room for another thread: see ulimit -u, and the container's limit of processes"),
    ("cluster support disabled", "this server is no Cluster: write redis:// instead of redis+cluster://"),
    ("non local key", "a slot is moving between servers of the Cluster; asking again is safe"),
    ("Hostname mismatch", "the certificate is another host's: name in the URL a host that is in the certificate"),
    ("IP address mismatch", "the certificate is another host's: name in the URL a host that is in the certificate"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not trusted: name its authority with ssl_ca_certs"),
    ("CERTIFICATE_REQUIRED", "it wants a client certificate: add ssl_certfile and ssl_keyfile"),
    ("HANDSHAKE_FAILURE", "it wants a client certificate: add ssl_certfile and ssl_keyfile"),
    ("UNKNOWN_CA", "the server does not trust our certificate: ssl_certfile has to be signed by its tls-ca-cert-file"),
    ("WRONG_VERSION_NUMBER", "this port speaks no TLS: use redis://, or the server's tls-port"),
    ("user executing the script", _RIGHTS),
    ("max number of clients", "the server is full: raise maxclients, or close other programs' connections"),
    ("DB index is out of range", "the server has fewer databases: take another number in the URL"),
    ("not allowed when used memory", "the server has no memory left: raise maxmemory"),
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
_HUNG_UP = ("reset by peer", "closed by server", "Broken pipe", "EOF occurred", "UNEXPECTED_EOF")
"""What it sounds like when a server ends a connection. Why, it says to nobody, at best to its log."""


def failure(what: str, url: StoreUrl, error: Exception) -> CoordinateError:
    """Return our error for a driver's; the caller raises it ``from`` that one."""
    conceal(error, url.password)
    said = str(error) or type(error).__name__
    message = f"{what} on {url} failed: {said}"
    if said.startswith("CORRUPT"):
        return CorruptRecord(f"{message}; delete the keys of this name")
    if isinstance(error, NoCredentials):
        return CredentialsUnavailable(f"{message}; nothing was asked")
    return BackendUnavailable(f"{message}; {_advice(url, error, said)}")


def conceal(error: BaseException, secret: str | None) -> None:
    """Take a secret out of an error and those that led to it: tracebacks show them all."""
    step: BaseException | None = error
    while secret and step is not None:
        step.args = tuple(_masked(part, secret) for part in step.args)
        step = step.__cause__ or step.__context__


def _masked(part: object, secret: str) -> object:
    return part.replace(secret, "***") if isinstance(part, str) else part


def _advice(url: StoreUrl, error: Exception, said: str) -> str:
    for word, advice in _BY_WORD:
        if word in said:
            return advice
    if isinstance(error, driver.AuthenticationError) and "credential_provider" in url.options:
        return "the server refused what the credential provider returned"
    if "cluster" in url.scheme and isinstance(error, driver.MovedError | driver.AskError):
        return "the slots of the Redis Cluster are moving; asking again is safe"
    encrypted = url.scheme.startswith("rediss")
    if any(word in said for word in _HUNG_UP):
        return _about_hanging_up(encrypted=encrypted, certified="ssl_certfile" in url.options)
    if encrypted and isinstance(error, driver.TimeoutError) and "connecting" in said:
        return "no TLS answer in time: if this port speaks no TLS, use redis:// or the server's tls-port"
    return next((advice for kind, advice in _BY_CLASS if isinstance(error, kind)), _OTHERWISE)


def _about_hanging_up(*, encrypted: bool, certified: bool) -> str:
    if not encrypted:
        return "the server hung up; if it always does, its port expects TLS: use rediss://"
    if not certified:
        return "the server hung up; if it always does, it wants a client certificate: add ssl_certfile and ssl_keyfile"
    return "the server hung up: see its log"
