"""What a ``zookeeper://`` URL means: servers, root path, credentials, encryption. All is checked here, once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kazoo.security import ACL, OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from coordinate._names import check_name, encode
from coordinate.errors import ConfigError
from coordinate_zookeeper import tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordinate.backend import StoreSettings
    from coordinate.url import StoreUrl

PORT = 2181
OPTIONS = ("timeout", "auth", "tls")
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS = (*TLS_FILES, "ssl_password", "ssl_check_hostname")
AUTH = ("digest", "sasl")
_FLAGS = {"true": True, "false": False}


class Address(NamedTuple):
    """Where to connect and as whom.

    Args:
        shown: the URL without its password.
        hosts: for kazoo: ``host:port`` joined by commas, without chroot.
        root: the node that everything of the namespace lies below.
        timeout: seconds that one operation may take.
        access: kazoo's keywords for credentials and encryption.
        acl: what every node is created with.
    """

    shown: str
    hosts: str
    root: str
    timeout: float
    access: Mapping[str, object]
    acl: tuple[ACL, ...]

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"

    @property
    def secured(self) -> bool:
        """Return whether nodes belong to somebody."""
        return list(self.acl) != list(OPEN_ACL_UNSAFE)


def read(url: StoreUrl, settings: StoreSettings) -> Address:
    """Return what a URL means.

    Raises:
        ConfigError: an unknown option, or a part that cannot work, named.
    """
    encrypted = _flag(url, "tls", default=False)
    url.check_options((*OPTIONS, *(TLS_OPTIONS if encrypted else ())))
    hosts = url.hosts or _localhost()
    access, acl = _credentials(url)
    if encrypted:
        access |= _tls(url)
    return Address(
        shown=str(url),
        hosts=",".join(_host(name, port) for name, port in hosts),
        root=f"{_chroot(url)}/{encode(settings.namespace)}",
        timeout=_timeout(url, settings),
        access=access,
        acl=acl,
    )


def _localhost() -> tuple[tuple[str, int | None], ...]:
    return (("127.0.0.1", None),)


def _host(name: str, port: int | None) -> str:
    return f"[{name}]:{port or PORT}" if ":" in name else f"{name}:{port or PORT}"


def _chroot(url: StoreUrl) -> str:
    path = url.path.strip("/")
    if not path:
        return ""
    check_name(path, f"{url}: chroot")
    if path.partition("/")[0] == "zookeeper":
        message = f"{url}: /zookeeper is the server's own: choose another chroot"
        raise ConfigError(message)
    return f"/{path}"


def _credentials(url: StoreUrl) -> tuple[dict[str, object], tuple[ACL, ...]]:
    kind = url.options.get("auth", AUTH[0])
    if kind not in AUTH:
        message = f"{url}: auth={kind!r} is not one of {', '.join(AUTH)}"
        raise ConfigError(message)
    user, password = url.username, url.password
    if user is None and password is None and "auth" not in url.options:
        return {}, tuple(OPEN_ACL_UNSAFE)
    if not user or not password or ":" in user:
        message = f"{url}: credentials are user:password@ before the hosts, the user without a colon"
        raise ConfigError(message)
    if kind == "digest":
        acl = make_digest_acl(user, password, all=True)
        return {"auth_data": {("digest", f"{user}:{password}")}}, (acl,)
    if importlib.util.find_spec("puresasl") is None:
        message = f"{url}: auth=sasl needs pure-sasl: pip install 'coordinate-zookeeper[sasl]'"
        raise ConfigError(message)
    options = {"mechanism": "DIGEST-MD5", "username": user, "password": password}
    return {"sasl_options": options}, (make_acl("sasl", user, all=True),)


def _tls(url: StoreUrl) -> dict[str, object]:
    """Return kazoo's keywords for an encrypted connection: the server's certificate is always verified."""
    files = {name: url.options[name] for name in TLS_FILES if name in url.options}
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
    return {
        "use_ssl": True,
        "verify_certs": True,
        "check_hostname": _flag(url, "ssl_check_hostname", default=True),
        "ca": files.get("ssl_ca_certs"),
        "certfile": files.get("ssl_certfile"),
        "keyfile": files.get("ssl_keyfile"),
        "keyfile_password": password,
    }


def _try_files(url: StoreUrl, files: Mapping[str, str], password: str) -> None:
    part = "ssl_ca_certs"
    try:
        tls.context(files.get("ssl_ca_certs"), None, None, password)
        part = "ssl_certfile, ssl_keyfile or ssl_password"
        tls.context(None, files.get("ssl_certfile"), files.get("ssl_keyfile"), password)
    except (OSError, ValueError) as error:
        message = f"{url}: {part} cannot be used ({error}): PEM files, a key that fits, its password if it has one"
        raise ConfigError(message) from error


def _flag(url: StoreUrl, name: str, *, default: bool) -> bool:
    value = url.options.get(name)
    if value is None:
        return default
    if value not in _FLAGS:
        message = f"{url}: {name}={value!r} is not one of {', '.join(_FLAGS)}"
        raise ConfigError(message)
    return _FLAGS[value]


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
