"""The bench's two config files, changed by rename while holding a lock, and only when something changes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, TypeAlias

from coordinate.errors import CommandFailed, WaitTimeout
from frappe_bootstrap import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from frappe_bootstrap.settings import Settings

Change: TypeAlias = "Callable[[dict[str, object]], dict[str, object]]"
"""Makes the new content of a config file of its old one."""
LOCK_TIMEOUT = 15.0
BAD_JSON_PATIENCE = 1.0
_PAUSE = 0.02


@contextlib.contextmanager
def locked(path: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold a flock, as the framework does; its file stays for ever.

    Raises:
        WaitTimeout: somebody else held it for that long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        limit = time.monotonic() + timeout
        while not _try_lock(descriptor):
            if time.monotonic() > limit:
                message = f"{path} is held by somebody else for more than {timeout:g} s"
                raise WaitTimeout(message)
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(path: Path) -> bool:
    """Return whether nobody holds a lock file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)


def merge(path: Path, lock: Path, changes: Mapping[str, object], defaults: Mapping[str, object] | None = None) -> bool:
    """Set keys, and others only if absent; keep everything else, mode and owner. Return whether anything changed.

    Raises:
        CommandFailed: the file is damaged, and stays as it is; or another program overwrote ours at once.
        WaitTimeout: the lock was not to be had.
    """
    return edit(path, lock, lambda before: {**(defaults or {}), **before, **changes})


def edit(path: Path, lock: Path, change: Change) -> bool:
    """Replace the content by what ``change`` makes of it, under the lock. Return whether anything changed.

    Raises:
        CommandFailed, WaitTimeout: as `merge`.
    """
    with locked(lock):
        before = read(path)
        after = change(dict(before))
        if after == before and path.exists():
            return False
        files.replace(path, json.dumps(after, indent=1, sort_keys=True))
        if read(path) != after:
            message = f"{path} was overwritten by another program while we held {lock}"
            raise CommandFailed(message, 1, message)
        return True


def read(path: Path) -> dict[str, object]:
    """Return the content of a config file; a missing one is empty.

    Raises:
        CommandFailed: it is damaged, for longer than an instant.
    """
    limit = time.monotonic() + BAD_JSON_PATIENCE
    while True:
        try:
            content = json.loads(files.read(path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            message = f"{path}: {error.strerror}"
            raise CommandFailed(message, 1, message) from error
        except ValueError as error:
            problem = f"{path} is damaged: {type(error).__name__}"
        else:
            if isinstance(content, dict):
                return content
            problem = f"{path} is damaged: not an object"
        if time.monotonic() > limit:
            raise CommandFailed(problem, 1, problem)
        time.sleep(_PAUSE)


def read_or_empty(path: Path) -> dict[str, object]:
    """Return the content of a config file; a damaged one is empty."""
    try:
        return read(path)
    except (CommandFailed, OSError):
        return {}


def set_aside(path: Path, mark: str) -> None:
    """Move a damaged config file out of the way of a new one; a usable one stays."""
    values = read_or_empty(path)
    if path.exists() and not (values.get("db_name") and values.get("db_password")):
        path.rename(path.with_name(f"damaged-{mark[:8]}-{path.name}"))


def set_aside_site(path: Path, mark: str) -> None:
    """Move a half-made site's folder, given by its config file, to where it is no site any more."""
    if path.exists():
        path.rename(path.with_name(f"half-made-{path.name}"))
    if path.parent.exists():
        path.parent.rename(
            path.parent.with_name(f".half-made-{path.parent.name[:100]}-{mark[:8]}-{os.urandom(4).hex()}")
        )


def common_keys(settings: Settings) -> dict[str, object]:
    """Return what the common config file has to say."""
    return {
        "db_host": settings.database.host,
        "db_port": settings.database.port,
        "redis_cache": settings.redis.cache,
        "redis_queue": settings.redis.queue,
        "redis_socketio": settings.redis.socketio,
        **({"rds_db": 1} if settings.database.rds else {}),
        **settings.database.tls.keys(),
    }


def write_common(settings: Settings) -> bool:
    """Bring the common config file up to date. The framework's own lock of it is private to each container."""
    lock = settings.sites / ".frappe_bootstrap" / "common_site_config.lock"
    path = settings.sites / "common_site_config.json"
    return merge(path, lock, common_keys(settings), {"default_site": settings.names[0]})


def write_site(settings: Settings, defaults: Mapping[str, object], changes: Mapping[str, object] | None = None) -> bool:
    """Add keys to the site's config file if they are absent, and set others, under the framework's own lock."""
    return edit_site(settings, lambda before: {**defaults, **before, **(changes or {})})


def edit_site(settings: Settings, change: Change) -> bool:
    """Change the site's config file under the framework's own lock."""
    folder = settings.sites / settings.site
    return edit(folder / "site_config.json", folder / "locks" / "site_config.lock", change)
