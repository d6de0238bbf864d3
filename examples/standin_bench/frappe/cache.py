"""The cache server, spoken to in a few words of its protocol; whoever is absent is silently not there."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frappe.database import Database
    from frappe.sites import Site

_DEFAULTS = {"redis_cache": "redis://127.0.0.1:13311", "redis_queue": "redis://127.0.0.1:11311"}


def is_running(config: dict[str, Any], name: str) -> bool:
    """Try a plain IPv4 connection; a URL without a port is a TypeError, as measured."""
    url = urlsplit(config.get(name) or _DEFAULTS[name])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        return probe.connect_ex((url.hostname or "", url.port)) == 0


def ask(config: dict[str, Any], name: str, *words: str) -> str | None:
    """Send one command and return its text; ``None`` for nil, an error, or no server."""
    url = urlsplit(config.get(name) or _DEFAULTS[name])
    commands = [list(words)]
    if url.path.strip("/"):
        commands.insert(0, ["SELECT", url.path.strip("/")])
    if url.password:
        commands.insert(0, ["AUTH", *filter(None, [unquote(url.username or "")]), unquote(url.password)])
    with (
        contextlib.suppress(OSError),
        socket.create_connection((url.hostname, url.port or 6379), 2) as server,
    ):
        server.sendall(b"".join(_encoded(command) for command in commands))
        replies = server.makefile("rb")
        return [_reply(line, replies) for line in _heads(replies, len(commands))][-1]
    return None


def _encoded(words: list[str]) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _heads(replies: BinaryIO, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield replies.readline().rstrip(b"\r\n")


def _reply(line: bytes, replies: BinaryIO) -> str | None:
    if line.startswith(b"$") and line != b"$-1":
        return str(replies.read(int(line[1:]) + 2)[:-2].decode())
    return None if line[:1] in (b"-", b"$", b"") else line[1:].decode()


def forget_installed_apps(site: Site) -> None:
    """Drop the cached row, as every change made *by the framework* does."""
    ask(site.config, "redis_cache", "DEL", _key(site))


def cached_installed_apps(site: Site, database: Database) -> list[str]:
    """Return what ``execute frappe.get_installed_apps`` says: the cached row if there is one, true or not."""
    known = ask(site.config, "redis_cache", "GET", _key(site))
    if known is not None:
        return list(json.loads(known))
    apps = database.installed_apps()
    if apps:
        ask(site.config, "redis_cache", "SET", _key(site), json.dumps(apps))
    return apps


def _key(site: Site) -> str:
    return f"{site.config.get('db_name')}|defaults|__global"
