"""What an ``etcd://`` or ``etcds://`` URL means. Everything in it is checked here, before anything is tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import ConfigError
from coordinate.url import Host

if TYPE_CHECKING:
    from coordinate.backend import StoreSettings
    from coordinate.url import StoreUrl

PORT = 2379
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_server_name")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+)*")
_LONGEST = 3600.0


class Tls(NamedTuple):
    """Contents of the PEM files for an encrypted connection; None: the system's authorities, no certificate."""

    authorities: bytes | None
    key: bytes | None
    certificate: bytes | None
    server_name: str

    def __repr__(self) -> str:
        return f"<Tls {self.server_name}>"


class Options(NamedTuple):
    """A checked URL."""

    url: StoreUrl
    endpoints: tuple[str, ...]
    timeout: float
    """Seconds that one operation may take, all endpoints together."""
    prefix: str
    """What all keys start with; it ends with a slash."""
    tls: Tls | None


def read(url: StoreUrl, settings: StoreSettings) -> Options:
    """Return the options of a URL.

    Raises:
        ConfigError: an unknown option, or a part that cannot work, named.
    """
    encrypted = url.scheme == "etcds"
    url.check_options(("timeout", *(_TLS if encrypted else ())))
    if url.password is not None and not url.username:
        message = f"{url}: a password without a user: write etcd://user:password@host"
        raise ConfigError(message)
    path = url.path.rstrip("/")
    if not _PREFIX.fullmatch(path):
        message = f"{url}: the path is a prefix of keys: segments of A-Z a-z 0-9 . _ - joined by '/'"
        raise ConfigError(message)
    hosts = url.hosts or (Host("127.0.0.1", PORT),)
    endpoints = tuple(dict.fromkeys(str(Host(host.name, host.port or PORT)) for host in hosts))
    prefix = f"{path}/{settings.namespace}/"
    return Options(url, endpoints, _timeout(url, settings), prefix, _tls(url) if encrypted else None)


def _timeout(url: StoreUrl, settings: StoreSettings) -> float:
    text = url.options.get("timeout")
    if text is None:
        return settings.timeout
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < _LONGEST:  # also refuses nan and inf
        message = f"{url}: timeout={text!r} is not a number of seconds between 0 and {_LONGEST:g}"
        raise ConfigError(message)
    return timeout


def _tls(url: StoreUrl) -> Tls:
    if ("ssl_certfile" in url.options) != ("ssl_keyfile" in url.options):
        message = f"{url}: ssl_certfile and ssl_keyfile belong together: give both or none"
        raise ConfigError(message)
    authorities, certificate, key = (_pem(url, name) for name in _FILES)
    return Tls(authorities, key, certificate, url.options.get("ssl_server_name", ""))


def _pem(url: StoreUrl, name: str) -> bytes | None:
    if name not in url.options:
        return None
    try:
        data = Path(url.options[name]).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"{url}: {name}={url.options[name]!r} cannot be read: {reason}"
        raise ConfigError(message) from error
    if b"-----BEGIN" not in data:
        message = f"{url}: {name}={url.options[name]!r} is not a PEM file"
        raise ConfigError(message)
    return data
