"""Waiting for the servers that a boot needs, with a deadline and reasons; checks of the container."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from coordinate.errors import BackendUnavailable, ConfigError, Interrupted
from frappe_bootstrap import files, inspection, redis_link

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coordinate import Coordinator
    from coordinate.steps import Event
    from frappe_bootstrap.bench import Bench
    from frappe_bootstrap.operation import Operation
    from frappe_bootstrap.settings import Settings

Seen = TypeVar("Seen")

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


def listen(stop: Stop) -> None:
    """React to TERM and INT, also as process 1, where there is no default reaction."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _: stop.set(signum))
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


class Ending:
    """What a signal does while there is a coordinator: the running step is stopped at once, or ends first.

    Args:
        stop: ends waits of ours.
        coordinator: its waits and guarded commands are ended, too.
        operation: STOP_POLICY and STOP_GRACE.
    """

    def __init__(self, stop: Stop, coordinator: Coordinator, operation: Operation) -> None:
        self._stop = stop
        self._coordinator = coordinator
        self._finish = operation.stop_policy == "finish"
        self._grace = operation.stop_grace
        self._at_work = False
        self._asked = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        signal.signal(signal.SIGALRM, lambda *_: self._end(self._asked))

    def event(self, event: Event) -> None:
        """Follow the plan: a step begins, a step ends."""
        if event.kind == "begin":
            self._at_work = True
        elif event.kind in _STEP_ENDS:
            self._at_work = False
            if self._asked:
                self._end(self._asked)

    def _hear(self, signum: int, _frame: object) -> None:
        if not self._finish or not self._at_work or self._asked:
            self._end(signum)
            return
        self._asked = signum
        # Every step has an end, but nobody waits for it for longer than this.
        signal.setitimer(signal.ITIMER_REAL, max(self._grace, 0.001))

    def _end(self, signum: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._stop.set(signum)
        self._coordinator.interrupt(signum)


_STEP_ENDS = frozenset({"done", "failed", "refused", "declined", "interrupted", "lost", "stale", "unavailable"})


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
    problems += _unusable(settings)
    if problems:
        who = f"user {os.getuid()}, group {os.getgid()}"
        lines = "\n".join(problems)
        message = f"what {who} must be able to read and write (chown or chmod it, or set fsGroup):\n{lines}"
        raise ConfigError(message)


def _unusable(settings: Settings) -> list[str]:
    """Return what on the volume is of a kind that a bench never has, before anything waits for it or follows it.

    A link within the volume is followed; one that leaves it could make us overwrite any file of this machine.
    """
    names = [f"{name}/site_config.json" for name in settings.names]
    problems = [
        f"  {settings.sites / name}: is a link to nothing; is another volume not mounted?"
        for name in settings.names
        if (settings.sites / name).is_symlink() and not (settings.sites / name).exists()
    ]
    for name in ("common_site_config.json", "apps.txt", *names):
        path = settings.sites / name
        try:
            files.read(path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            problems.append(f"  {path}: {getattr(error, 'strerror', None) or 'is not text'}")
        if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
            problems.append(f"  {path}: is a link that leaves its folder: put a plain file there")
    return problems


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
                message = f"no look succeeded within {limit:g} s (WAIT_TIMEOUT): {error}"
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
    try:
        redis_link.ask(url, "PING")
    except OSError as error:
        return f"{parts.hostname}:{parts.port}: {error}"
    return None


def _database(bench: Bench) -> str | None:
    try:
        # Root is asked by the one who creates a site, not by every container that boots.
        return inspection.unreachable(bench.inspect(reachable=True))
    except BackendUnavailable as error:
        return str(error)
