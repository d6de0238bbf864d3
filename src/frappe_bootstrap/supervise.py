"""BOOTSTRAP_MODE=supervise: we stay process 1 and COMMAND is our child, in a session of its own.

Promised: every signal that we get goes to the child, and nothing but the child decides when it ends; orphans that come
to us are reaped; the child's exit code is ours. A newer revision that begins its work is noticed, and answered as
ON_UPGRADE says. Whoever watches for that is a process of its own (`frappe_bootstrap.watch`): no store that does not
answer can keep a signal from the child. If it dies it is started again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from frappe_bootstrap import probes, settings
from frappe_bootstrap.codes import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_SUPERSEDED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from frappe_bootstrap.reporting import Reporter
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.waiting import Stop

_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
_WATCH_AGAIN = 2.0
_NAP = 1.0


class Supervision:
    """One command and its watcher.

    Args:
        command: what to run.
        chosen: the settings.
        reporter: gets log lines.
        seen: by scope, the newest leader's token at the end of the boot.
    """

    def __init__(self, command: Sequence[str], chosen: Settings, reporter: Reporter, seen: Mapping[str, int]) -> None:
        self._command = list(command)
        self._chosen = chosen
        self._reporter = reporter
        self._seen = seen
        self._pending: list[int] = []
        self._child = self._watcher = 0
        self._code: int | None = None
        self._superseded = False
        self._news = -1
        self._rest = b""
        self._watch_at = 0.0

    def run(self, stop: Stop) -> NoReturn:
        """Run the command to its end and end with its code."""
        bell, ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._listen(ring, stop)
        self._reporter.line(f"starting {self._command[0]}, supervised")
        self._child = self._spawn(self._command, settings.child_environment(os.environ))
        while self._code is None:
            self._watch()
            self._wait(bell)
            self._forward()
            self._reap()
        if self._watcher:
            os.kill(self._watcher, signal.SIGKILL)
        code = EXIT_SUPERSEDED if self._superseded and self._chosen.operation.on_upgrade == "stop" else self._code
        self._reporter.line(f"{self._command[0]} has ended with code {self._code}; exit code {code}")
        sys.exit(code)

    def _listen(self, ring: int, stop: Stop) -> None:
        """Keep signals from here on; one that came before still ends us."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        if stop.signum:
            sys.exit(128 + stop.signum)
        for number in _FORWARDED:
            signal.signal(number, lambda signum, _: self._pending.append(signum))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)

    def _spawn(self, command: Sequence[str], environ: Mapping[str, str], output: int = 1) -> int:
        # Dispositions as a program expects them; ours would be inherited where they are "ignore".
        defaults = [signal.SIGPIPE, signal.SIGXFSZ, *_FORWARDED, signal.SIGCHLD]
        try:
            return os.posix_spawnp(
                command[0],
                list(command),
                environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, output, 1)],
                setsid=True,
                setsigmask=[],
                setsigdef=defaults,
            )
        except FileNotFoundError:
            self._reporter.line(f"{command[0]}: not found", level="ERROR")
            sys.exit(EXIT_NOT_FOUND)
        except OSError as error:
            self._reporter.line(f"{command[0]}: {error.strerror}", level="ERROR")
            sys.exit(EXIT_NOT_EXECUTABLE)

    def _watch(self) -> None:
        """Start the watcher, or start it again."""
        if self._watcher or self._chosen.operation.on_upgrade == "ignore" or time.monotonic() < self._watch_at:
            return
        self._watch_at = time.monotonic() + _WATCH_AGAIN
        if self._news >= 0:
            os.close(self._news)
        self._news, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        seen = [f"{scope}={token}" for scope, token in self._seen.items()]
        command = [sys.executable, "-m", "frappe_bootstrap.watch", *seen]
        self._watcher = self._spawn(command, {**os.environ, "IMAGE_REV": self._chosen.revision}, theirs)
        os.close(theirs)

    def _wait(self, bell: int) -> None:
        wanted = [bell] if self._news < 0 or not self._watcher else [bell, self._news]
        ready, _, _ = select.select(wanted, [], [], _NAP)
        if bell in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(bell, 4096)
        if self._news in ready:
            self._hear()

    def _hear(self) -> None:
        """Take what the watcher says: a line for each change, ``newer REVISION`` or ``none``."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._news, 65536)
            if not data:  # it has ended; it is reaped, and started again
                os.close(self._news)
                self._news = -1
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                word, _, revision = line.decode(errors="replace").partition(" ")
                self._take(revision if word == "newer" else "")

    def _take(self, newer: str) -> None:
        revision, policy = self._chosen.revision, self._chosen.operation.on_upgrade
        if bool(newer) == self._superseded:
            return
        self._superseded = bool(newer)
        if not newer:
            self._reporter.line("the newer revision has given up: ready again")
            probes.write(probes.SERVING, os.environ, revision=revision)
            return
        reason = f"revision {newer} has begun its work"
        self._reporter.line(f"{reason}; ON_UPGRADE={policy}", level="WARNING")
        state = probes.STOPPING if policy == "stop" else probes.UNREADY
        probes.write(state, os.environ, revision=revision, reason=reason)
        if policy == "stop":
            self._pending.append(signal.SIGTERM)

    def _forward(self) -> None:
        while self._pending:
            number = self._pending.pop(0)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _reap(self) -> None:
        """Take leave of every process that has ended: the child, the watcher, orphans that came to us."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid == self._watcher:
                    self._watcher = 0
                elif pid == self._child:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = 128 - code if code < 0 else code
