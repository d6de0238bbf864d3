"""What the options of a Redis URL mean. All are checked here, once, for every way to run Redis."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coordinate.backends.redis.credentials import OPTION as CREDENTIAL_PROVIDER
from coordinate.backends.redis.credentials import Credentials
from coordinate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordinate.backend import StoreSettings
    from coordinate.url import StoreUrl

COMMON = ("timeout", "client_name", "quarantine", "durability", CREDENTIAL_PROVIDER)
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
QUARANTINE = ("auto", "strict", "off")
DURABILITY = ("none", "one", "all")
_CLIENT_NAME = re.compile(r"[!-~]{1,64}")


class Options(NamedTuple):
    """Options of a store on Redis.

    Args:
        timeout: seconds that one request may take.
        quarantine: what a server that has lost its memory may grant: see `coordinate.backends.redis.incarnation`.
        durability: how many replicas must have a grant before it counts: ``none``, ``one``, ``all``.
        greeting: how to talk to a data server: redis-py's keywords, and ``credentials``, a
            `coordinate.backends.redis.credentials.Credentials`.
    """

    timeout: float
    quarantine: str
    durability: str
    greeting: Mapping[str, object]


def read(url: StoreUrl, settings: StoreSettings, *more: str) -> Options:
    """Return the options of a URL; ``more`` are those that only its scheme has.

    Raises:
        ConfigError: an unknown option or a value that cannot work, named.
    """
    encrypted = url.scheme.startswith("rediss")
    url.check_options((*COMMON, *(TLS if encrypted else ()), *more))
    timeout = _timeout(url, settings)
    greeting: dict[str, object] = {
        "credentials": Credentials(url),
        "client_name": _client_name(url),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
    if encrypted:
        greeting |= tls(url)
    return Options(timeout, choice(url, "quarantine", QUARANTINE), choice(url, "durability", DURABILITY), greeting)


def tls(url: StoreUrl) -> dict[str, object]:
    """Return redis-py's keywords for an encrypted connection: the certificate is always verified.

    The host name is compared, too, unless ``ssl_check_hostname=false``. ``ssl_ca_certs`` is trusted besides the
    system's authorities.

    Raises:
        ConfigError: a file that is missing or unusable, a certificate without its key, or a key without its password.
    """
    files: dict[str, str] = {name: path for name, path in url.options.items() if name in _FILES}
    for name, path in files.items():
        if not Path(path).is_file():
            message = f"{url}: {name}={path!r} is not a file"
            raise ConfigError(message)
    if ("ssl_certfile" in files) != ("ssl_keyfile" in files):
        message = f"{url}: ssl_certfile and ssl_keyfile belong together: give both or none"
        raise ConfigError(message)
    # Without any password OpenSSL would ask for it on the terminal.
    password = url.options.get("ssl_password", "")
    _try_files(url, files, password)
    check = choice(url, "ssl_check_hostname", ("true", "false")) == "true"
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": check, "ssl_password": password, **files}


def _try_files(url: StoreUrl, files: Mapping[str, str], password: str) -> None:
    import ssl  # noqa: PLC0415 -- loads OpenSSL: only for encrypted connections

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    part = "ssl_ca_certs"
    try:
        if part in files:
            context.load_verify_locations(files[part])
        part = "ssl_certfile, ssl_keyfile or ssl_password"
        if "ssl_certfile" in files:
            context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"], password)
    except (OSError, ValueError) as error:
        message = f"{url}: {part} cannot be used ({error}): PEM files, a key that fits, its password if it has one"
        raise ConfigError(message) from error


def choice(url: StoreUrl, name: str, allowed: tuple[str, ...]) -> str:
    """Return an option that has a few values; the first of them is the default.

    Raises:
        ConfigError: another value.
    """
    value = url.options.get(name, allowed[0])
    if value not in allowed:
        message = f"{url}: {name}={value!r} is not one of {', '.join(allowed)}"
        raise ConfigError(message)
    return value


def database(url: StoreUrl, text: str) -> int:
    """Return the number of a database; 0 for an empty text.

    Raises:
        ConfigError: it is no number.
    """
    if text and not (text.isascii() and text.isdigit() and len(text) < len(str(2**31))):
        message = f"{url}: {text!r} is not the number of a database, for example redis://host:6379/0"
        raise ConfigError(message)
    return int(text or 0)


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
