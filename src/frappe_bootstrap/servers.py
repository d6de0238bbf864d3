"""The servers that the environment names: database, Redis, lease store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from frappe_bootstrap.tls import Tls
from frappe_bootstrap.tls import load as load_tls

if TYPE_CHECKING:
    from frappe_bootstrap.reader import Reader

_RESERVED = {"root", "mysql", "information_schema", "performance_schema", "sys", "postgres", "template0", "template1"}
_LONGEST_POSTGRES = 63
_DATABASE = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True)
class Database:
    """The database server and what a new site needs on it."""

    kind: str
    host: str
    port: int
    name: str
    password: str | None = field(repr=False)
    root_user: str
    root_password: str | None = field(repr=False)
    rds: bool = False
    """Whether the administrator may not grant everything, as on RDS."""
    tls: Tls = field(default_factory=Tls)

    def of(self, site: str) -> Database:
        """Return the same for another site, whose database has the default name."""
        return replace(self, name=default_name(site))


@dataclass(frozen=True)
class Redis:
    """The URLs that go into the bench's configuration; always with a port, passwords encoded."""

    cache: str = field(repr=False)
    queue: str = field(repr=False)
    socketio: str = field(repr=False)


def database(reader: Reader, site: str) -> Database:
    """Read what is said about the database server."""
    kind = reader.text("DB_TYPE", "mariadb").lower()
    if kind == "mysql":
        reader.notices.append("DB_TYPE=mysql is taken as mariadb")
    elif kind not in {"mariadb", "postgres"}:
        reader.problem("DB_TYPE", f"{kind!r} is neither mariadb nor postgres")
    kind = "postgres" if kind == "postgres" else "mariadb"
    root = reader.text("DB_ROOT_USER", "postgres" if kind == "postgres" else "root")
    name = reader.text("DB_NAME")
    if name and (not _DATABASE.fullmatch(name) or (kind == "postgres" and len(name) > _LONGEST_POSTGRES)):
        longest = _LONGEST_POSTGRES if kind == "postgres" else 64
        reader.problem("DB_NAME", f"{name!r} is not 1 to {longest} letters, digits or _")
    if name.casefold() in _RESERVED | {root.casefold()}:
        reader.problem("DB_NAME", f"{name!r} belongs to the server or its administrator: choose another one")
    password = reader.secret("DB_PASS")
    if password and re.search(r"['\"\\`]", password):
        reader.problem("DB_PASS", "holds a quote or a backslash, which a new site cannot have: choose another one")
    return Database(
        kind=kind,
        host=reader.text("DB_HOST", required=True),
        port=reader.port("DB_PORT", 5432 if kind == "postgres" else 3306),
        name=name or default_name(site),
        password=password,
        root_user=root,
        root_password=reader.secret("DB_ROOT_PASS"),
        rds=reader.flag("DB_RDS"),
        tls=load_tls(reader, kind),
    )


def default_name(site: str) -> str:
    """Return the name of a new site's database where none was given."""
    digest = hashlib.sha1(site.encode(), usedforsecurity=False).hexdigest()
    return f"_{digest[:16]}"


def redis(reader: Reader) -> Redis:
    """Read what is said about Redis."""
    cache, queue = reader.redis_url("REDIS_CACHE_URL"), reader.redis_url("REDIS_QUEUE_URL")
    host = reader.text("REDIS_HOST", required=cache is None or queue is None)
    password = reader.secret("REDIS_PASS")
    cache_port = reader.port("REDIS_CACHE_PORT", required=cache is None)
    queue_port = reader.port("REDIS_QUEUE_PORT", required=queue is None)
    queue = queue or build_url(host, queue_port, password)
    socketio = reader.port("REDIS_SOCKETIO_PORT")
    return Redis(
        cache=cache or build_url(host, cache_port, password),
        queue=queue,
        socketio=build_url(host, socketio, password) if socketio and host else queue,
    )


def build_url(host: str, port: int, password: str | None, scheme: str = "redis", user: str = "") -> str:
    """Return a Redis URL, always with the port, the password encoded."""
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{credentials}{shown}:{port}"


def lease_url(reader: Reader, redis: Redis) -> str | None:
    """Return the lease store's URL; None: coordinate takes the default of COORDINATE_BACKEND."""
    url = reader.secret("COORDINATE_URL")
    host, port, password = (
        reader.text("LOCK_REDIS_HOST"),
        reader.text("LOCK_REDIS_PORT"),
        reader.secret("LOCK_REDIS_PASS"),
    )
    number = reader.port("LOCK_REDIS_PORT")
    if url or reader.text("COORDINATE_BACKEND"):
        if host or port or password:
            reader.notices.append("LOCK_REDIS_* are not used: COORDINATE_URL or COORDINATE_BACKEND is given")
        return url
    if not (host or port or password) or reader.problems:
        return f"{redis.queue}/0" if not urlsplit(redis.queue).path else redis.queue
    queue = urlsplit(redis.queue)
    inherited = unquote(queue.password) if queue.password else None
    # What is not said is the queue's: its password with its user, and never less protection than it has.
    user = unquote(queue.username or "") if password is None else ""
    chosen = number if port else queue.port or 6379
    return build_url(host or queue.hostname or "", chosen, password or inherited, queue.scheme, user) + "/0"


def rebuild(reader: Reader, redis: Redis, lease_url: str | None) -> str:
    """Return when assets are built at boot.

    A build may flush the whole cache server, and the leases with it if they are there: then two replicas could lead.
    Where a build is certain that is refused; where it is not to be expected, and elsewhere, it is said.
    """
    words = {"auto": "auto", "1": "always", "0": "never", "true": "always", "false": "never"}
    rebuild = reader.choice("REBUILD_ASSETS_ON_BOOT", words, "auto")
    cache = _server(redis.cache)
    if lease_url is None and reader.text("COORDINATE_BACKEND") == "redis":
        lease_url = "redis://127.0.0.1"
    apart = "give the leases a server of their own (LOCK_REDIS_HOST and LOCK_REDIS_PORT, or COORDINATE_URL)"
    if lease_url is not None and cache is not None and _server(lease_url) == cache:
        if rebuild == "always":
            reader.problem(
                "REBUILD_ASSETS_ON_BOOT",
                f"a build may flush redis_cache, where the leases are, too: set it to 0, or {apart}",
            )
        elif rebuild == "auto":
            reader.notices.append(f"the leases are on the server of redis_cache, which a build may flush: {apart}")
    if cache is not None and cache == _server(redis.queue) == _server(redis.socketio):
        reader.notices.append(
            "redis_cache, redis_queue and redis_socketio are one server: a flush of the cache empties all"
        )
    return rebuild


def _server(url: str) -> tuple[str, int] | None:
    """Return which Redis server a URL names; None: none, or not a single one by host and port."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or 6379
    except ValueError:
        return None
    if parts.scheme not in {"redis", "rediss"} or not host:
        return None
    return ("127.0.0.1" if host in {"localhost", "::1"} else host, port)
