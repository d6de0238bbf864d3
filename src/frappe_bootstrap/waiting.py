"""Waiting for the servers that a boot needs, with a deadline and reasons; checks of the container."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from coordinate.errors import BackendUnavailable, ConfigError, Interrupted
from frappe_bootstrap import inspection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from urllib.parse import SplitResult

    from coordinate import Coordinator
    from frappe_bootstrap.bench import Bench
    from frappe_bootstrap.settings import Settings

Seen = TypeVar("Seen")

_REDIS_TIMEOUT = 3.0
_REDIS_PORT = 6379
_LONGEST_ANSWER = 4096
_PAUSE = 0.5
_LONGEST_PAUSE = 3.0


class Stop:
    """A request to stop, set by a signal handler; wakes whoever waits."""

    def __init__(self) -> None:
        self.signum = 0
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that is readable once the request was made."""
        return self._descriptor

    def set(self, signum: int) -> None:
        """Ask to stop. Signal-safe."""
        self.signum = signum
        os.eventfd_write(self._descriptor, 1)

    def check(self) -> None:
        """Raise `Interrupted` if asked to stop."""
        if self.signum:
            message = f"stopped by signal {self.signum}"
            raise Interrupted(message, self.signum)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless asked to stop."""
        select.select([self], [], [], max(0.0, seconds))
        self.check()


def listen(stop: Stop, coordinator: Coordinator | None) -> None:
    """React to TERM and INT, also as process 1, where there is no default reaction."""

    def ask_to_stop(signum: int, _frame: object) -> None:
        """End waits of ours, and of the coordinator's if there is one."""
        stop.set(signum)
        if coordinator is not None:
            coordinator.interrupt(signum)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)


def check_container(settings: Settings) -> None:
    """Check what each container needs for itself; change nothing but create missing folders.

    Raises:
        ConfigError: names every folder that cannot be written, with the fix.
    """
    problems = []
    for part in ("sites", "logs", "config", "config/pids"):
        problem = _unwritable(settings.bench / part)
        if problem:
            problems.append(f"  {settings.bench / part}: {problem}")
    if problems:
        who = f"user {os.getuid()}, group {os.getgid()}"
        lines = "\n".join(problems)
        message = f"folders that {who} must be able to write (chown or chmod them, or set fsGroup):\n{lines}"
        raise ConfigError(message)


def _unwritable(folder: Path) -> str | None:
    probe = folder / f".write-test.{os.uname().nodename}.{os.getpid()}.{os.urandom(6).hex()}"
    try:
        folder.mkdir(exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def wait_for_servers(
    settings: Settings, bench: Bench, coordinator: Coordinator, stop: Stop, log: Callable[[str], object]
) -> None:
    """Return when the lease store, both Redis servers and the database answer.

    Raises:
        BackendUnavailable: at the deadline, with the last reason of each server that does not.
        Interrupted: asked to stop.
    """
    checks: dict[str, Callable[[], str | None]] = {
        "lease store": lambda: _lease_store(coordinator),
        "redis_cache": lambda: ping_redis(settings.redis.cache),
        "redis_queue": lambda: ping_redis(settings.redis.queue),
        "database": lambda: _database(bench),
    }
    limit, pause = time.monotonic() + settings.wait_timeout, _PAUSE
    told: dict[str, str] = {}
    while True:
        for name in list(checks):
            stop.check()
            reason = checks[name]()
            if reason is None:
                del checks[name]
                if name in told:
                    log(f"{name} answers")
                told.pop(name, None)
            elif told.get(name) != reason:
                log(f"waiting for {name}: {reason}")
                told[name] = reason
        if not checks:
            return
        if time.monotonic() >= limit:
            reasons = "\n".join(f"  {name}: {reason}" for name, reason in told.items())
            message = f"not available after {settings.wait_timeout:g} s (WAIT_TIMEOUT):\n{reasons}"
            raise BackendUnavailable(message)
        stop.sleep(min(pause, limit - time.monotonic()))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def bear_outages(look: Callable[[], Seen], limit: float, stop: Stop, log: Callable[[str], object]) -> Seen:
    """Return what a look at a server shows, repeating a look that fails; each new reason is logged.

    Raises:
        BackendUnavailable: none succeeded within ``limit`` seconds (WAIT_TIMEOUT); with the last reason.
        Interrupted: asked to stop.
    """
    ends_at, pause, told = time.monotonic() + limit, _PAUSE, ""
    while True:
        stop.check()
        try:
            return look()
        except BackendUnavailable as error:
            if time.monotonic() >= ends_at:
                message = f"no look at the site succeeded within {limit:g} s (WAIT_TIMEOUT): {error}"
                raise BackendUnavailable(message) from error
            if str(error) != told:
                told = str(error)
                log(f"trying again: {told}")
        stop.sleep(min(pause, ends_at - time.monotonic()))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _lease_store(coordinator: Coordinator) -> str | None:
    try:
        coordinator.backend.ping()
    except BackendUnavailable as error:
        return str(error)
    return None


def ping_redis(url: str) -> str | None:
    """Return why a Redis server cannot be used, or None."""
    parts = urlsplit(url)
    plain = parts.scheme == "redis" and not parts.query
    try:
        reason = _ask_redis(parts) if plain else _ask_redis_by_client(url)
    except OSError as error:
        reason = str(error)
    return f"{parts.hostname}:{parts.port}: {reason}" if reason else None


def _ask_redis(parts: SplitResult) -> str | None:
    """Log in and ping over a plain socket: to import the client library costs more than the rest of our start."""
    commands = [["PING"]]
    if database := parts.path.strip("/"):
        commands.insert(0, ["SELECT", database])
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user or password:
        commands.insert(0, ["AUTH", user, password] if user else ["AUTH", password])
    with (
        socket.create_connection((parts.hostname or "", parts.port or _REDIS_PORT), _REDIS_TIMEOUT) as link,
        link.makefile("rb") as answers,
    ):
        for command in commands:
            words = [f"${len(word.encode())}\r\n{word}\r\n" for word in command]
            link.sendall(f"*{len(words)}\r\n{''.join(words)}".encode())
            answer = answers.readline(_LONGEST_ANSWER)
            if not answer.startswith(b"+"):
                return answer[1:].decode(errors="replace").strip() or "it closed the connection"
    return None


def _ask_redis_by_client(url: str) -> str | None:
    """The same with all that a URL can say, TLS and its options among it."""
    import redis  # noqa: PLC0415 -- loaded when it is needed
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    try:
        with redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=_REDIS_TIMEOUT,
            socket_connect_timeout=_REDIS_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.ping()
    except redis.RedisError as error:
        return str(error)
    return None


def _database(bench: Bench) -> str | None:
    try:
        # Root is asked by the one who creates a site, not by every container that boots.
        return inspection.unreachable(bench.inspect(reachable=True))
    except BackendUnavailable as error:
        return str(error)
