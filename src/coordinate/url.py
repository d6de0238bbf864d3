"""Store URLs: ``scheme://[user[:password]@]host[:port][,host[:port]...]/path?option=value``.

The standard library's splitter takes one host only (and silently drops the others when the second is an IPv6
address), so the host list is split here. Celery's ``sentinel://a:26379;sentinel://b:26379/service`` is one URL. User
names and passwords are percent-decoded; ``repr`` and ``str`` never show a password.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from coordinate.errors import ConfigError

_NEXT_SENTINEL = re.compile(r";\s*sentinel://", re.IGNORECASE)
_SECRET_OPTIONS = ("password", "secret", "token")


class Host(NamedTuple):
    """One server address; ``port`` is None where the URL does not say."""

    name: str
    port: int | None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


class StoreUrl(NamedTuple):
    """A parsed store URL.

    Example:
        >>> parse("redis://:s3cret@cache:6379/2?timeout=1").hosts
        (Host(name='cache', port=6379),)
    """

    scheme: str
    hosts: tuple[Host, ...]
    path: str
    username: str | None
    password: str | None
    options: dict[str, str]

    def __str__(self) -> str:
        user = self.username or ""
        credentials = f"{user}:***@" if self.password is not None else (f"{user}@" if user else "")
        pairs = "&".join(f"{key}={_shown(key, value)}" for key, value in self.options.items())
        hosts = ",".join(map(str, self.hosts))
        return f"{self.scheme}://{credentials}{hosts}{self.path}{'?' if pairs else ''}{pairs}"

    def __repr__(self) -> str:
        return f"<StoreUrl {self}>"

    @property
    def base_scheme(self) -> str:
        """Return the scheme's part before ``+``: the name of the plugin's entry point."""
        return self.scheme.partition("+")[0]

    def check_options(self, known: tuple[str, ...]) -> None:
        """Refuse options that nobody would read.

        Raises:
            ConfigError: naming the unknown option and all known ones.
        """
        for key in self.options:
            if key not in known:
                listed = ", ".join(sorted(known)) or "none"
                message = f"{self}: unknown option {key!r}; known options: {listed}"
                raise ConfigError(message)


def _shown(key: str, value: str) -> str:
    return "***" if any(word in key.lower() for word in _SECRET_OPTIONS) else value


def parse(text: str) -> StoreUrl:
    """Return the parts of a store URL.

    Raises:
        ConfigError: no scheme, a broken host list, a port that is no port, or an option given twice.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or not scheme or not scheme.replace("+", "").replace("-", "").isalnum():
        # The text itself is not shown: a URL that does not parse may still hold a password.
        message = "a store URL looks like redis://host:6379/0, file:///dir or memory://; this one has no scheme"
        raise ConfigError(message)
    if scheme.lower() == "sentinel":
        rest = _joined(rest)
    rest, _, query = rest.partition("?")
    # Credentials may hold any of : @ / # unencoded; so the last @ ends them.
    # A URL without host (file:///a@b) has no credentials.
    credentials, at, location = ("", "", rest) if rest.startswith("/") else rest.rpartition("@")
    hosts, slash, path = location.partition("/")
    username, password = _credentials(credentials) if at else (None, None)
    parsed = tuple(_host(part, scheme) for part in _split_hosts(hosts)) if hosts else ()
    return StoreUrl(scheme.lower(), parsed, slash + unquote(path), username, password, _options(query, scheme))


def _joined(rest: str) -> str:
    """Return Celery's list of Sentinel URLs, each with one host, as one with a list of hosts."""
    parts = [_parts(part) for part in _NEXT_SENTINEL.split(rest)]
    hosts, *others = zip(*parts, strict=True)
    credentials, path, query = ({text for text in given if text} for given in others)
    if max(map(len, (credentials, path, query))) > 1:
        message = "sentinel:// URLs in one list differ in credentials, service or options: give each once, or the same"
        raise ConfigError(message)
    return f"{''.join(credentials)}{','.join(hosts)}{''.join(path)}{''.join(query)}"


def _parts(text: str) -> tuple[str, str, str, str]:
    """Return hosts, credentials with their ``@``, path and query with its ``?``."""
    text, mark, query = text.partition("?")
    credentials, at, location = text.rpartition("@")
    hosts, slash, path = location.partition("/")
    return hosts, credentials + at, slash + path if path else "", mark + query


def _credentials(text: str) -> tuple[str | None, str | None]:
    user, colon, password = text.partition(":")
    return unquote(user) or None, unquote(password) if colon else None


def _split_hosts(text: str) -> list[str]:
    parts = text.split(",")
    if not all(parts):
        message = "a store URL names an empty host: look for a doubled or trailing comma"
        raise ConfigError(message)
    return parts


def _host(text: str, scheme: str) -> Host:
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        well_formed = bool(bracket) and (not port or port.startswith(":"))
        port = port[1:]
    else:
        name, _, port = text.partition(":")
        well_formed = ":" not in port
    if not well_formed or not name:
        message = f"{scheme}:// URL: {text!r} is not a host; write an IPv6 address in brackets"
        raise ConfigError(message)
    return Host(unquote(name), _port(port, scheme) if port else None)


def _port(text: str, scheme: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):  # noqa: PLR2004 -- the range of ports
        message = f"{scheme}:// URL: {text!r} is not a port between 1 and 65535"
        raise ConfigError(message)
    return int(text)


def _options(query: str, scheme: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs):
        message = f"{scheme}:// URL: an option is given twice"
        raise ConfigError(message)
    return options
