"""Store URLs: ``scheme://[user[:password]@]host[:port][,host[:port]...]/path?option=value``.

The standard library's splitter takes one host only (and silently drops the others when the second is an IPv6
address), so the host list is split here. Celery's ``sentinel://a:26379;sentinel://b:26379/service`` is one URL. User
names and passwords are percent-decoded; ``repr`` and ``str`` never show a password.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from coordinate.errors import ConfigError

_NEXT_SENTINEL = re.compile(r";\s*sentinel://", re.IGNORECASE)
_SECRET_OPTIONS = ("pass", "pwd", "secret", "token", "auth")
_HOST = re.compile(r"[^\s\x00-\x1f\x7f/@?#\\:,\[\]]{1,253}")
_ENCODE = "in user and password write ? as %3F"
_SERVERS = ("redis", "rediss", "sentinel")
"""Schemes whose URLs have a host before their path."""


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
        # A user without a password is often a password without its colon.
        credentials = "***@" if self.username else ""
        if self.password is not None:
            credentials = f"{self.username or ''}:***@"
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
                # Without the options: what is unknown may be a password under any name.
                message = f"{self._replace(options={})}: unknown option {key!r}; known options: {listed}"
                raise ConfigError(message)


def _shown(key: str, value: str) -> str:
    return "***" if any(word in key.lower() for word in _SECRET_OPTIONS) else value


def parse(text: str) -> StoreUrl:
    """Return the parts of a store URL.

    Raises:
        ConfigError: no scheme, a broken host list, a port that is no port, an option given twice or without a name,
            or characters that cannot be sent. Names the wrong part by its place and never shows it: it may be a
            password that was put there by mistake.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or not scheme or not scheme.replace("+", "").replace("-", "").isalnum():
        message = "a store URL looks like redis://host:6379/0, file:///dir or memory://; this one has no scheme"
        raise ConfigError(message)
    if not _sendable(rest):
        message = f"{scheme}:// URL: it has a control character or is no UTF-8: look for a line break in it"
        raise ConfigError(message)
    if scheme.lower() == "sentinel":
        rest = _joined(rest)
    rest, _, query = rest.partition("?")
    # Credentials may hold any of : @ / # unencoded; so the last @ ends them.
    # A URL without host (file:///a@b) has no credentials.
    credentials, at, location = ("", "", rest) if rest.startswith("/") else rest.rpartition("@")
    hosts, slash, path = location.partition("/")
    username, password = _credentials(credentials) if at else (None, None)
    if not hosts and (at or "@" in path) and scheme.lower().partition("+")[0] in _SERVERS:
        message = f"{scheme}:// URL: there is no host: it looks like {scheme}://user:password@host:port/"
        raise ConfigError(message)
    parsed = tuple(_host(part, f"{scheme}:// URL: host {number}") for number, part in _numbered(hosts)) if hosts else ()
    location = unquote(path)
    if not _sendable(location):
        message = f"{scheme}:// URL: its path has a control character"
        raise ConfigError(message)
    return StoreUrl(scheme.lower(), parsed, slash + location, username, password, _options(query, scheme))


def _sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not re.search(r"[\x00-\x1f\x7f]", text)


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


def _numbered(text: str) -> enumerate[str]:
    return enumerate(text.split(","), 1)


def _host(text: str, what: str) -> Host:
    """Return one address; ``what`` says in errors which one it is."""
    if not text:
        message = f"{what} is empty: look for a doubled or trailing comma"
        raise ConfigError(message)
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        name, colon, port = unquote(name), port[:1], port[1:]
        well_formed = bool(bracket) and _is_ipv6(name) and colon in {"", ":"}
    else:
        name, colon, port = text.partition(":")
        name = unquote(name)
        well_formed = ":" not in port and _HOST.fullmatch(name) is not None
    if not well_formed:
        message = f"{what} is not a host name or address; write an IPv6 address in brackets; {_ENCODE}"
        raise ConfigError(message)
    return Host(name, _port(port, what) if colon else None)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _port(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):  # noqa: PLR2004 -- ports
        message = f"{what} has a port that is not a number between 1 and 65535; {_ENCODE}"
        raise ConfigError(message)
    return int(text)


def _options(query: str, scheme: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    twice = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
    if twice:
        message = f"{scheme}:// URL: the option {twice[0]!r} is given twice"
        raise ConfigError(message)
    if any("@" in key for key in options):
        message = f"{scheme}:// URL: an @ in the name of an option; {_ENCODE}"
        raise ConfigError(message)
    if "" in options:
        message = f"{scheme}:// URL: an option has no name; options look like ?timeout=1&client_name=web"
        raise ConfigError(message)
    return options
