"""A guarded command under a lease: its output, its end, and its death when the lease is lost."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import CommandFailed, Interrupted, LeaseLost, WaitTimeout
from coordinate.process import GuardedChild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from coordinate._clock import Clock
    from coordinate._waiting import Hub
    from coordinate.lease import Lease

TAIL_LINES = 20
CANNOT_START = 126
_LONGEST_NAP = 0.2
_LINE_LIMIT = 8192


class Command(NamedTuple):
    """What to run and how.

    Args:
        argv: program and arguments.
        env: its whole environment; None: ours.
        cwd: its working directory.
        pass_fds: descriptors it inherits besides the standard ones.
        stdin: descriptor it reads from; None: ours for a foreground command, otherwise nothing.
        capture: read its output, keep the last lines; False: it writes where we write.
        grace: seconds between the request to stop and the kill.
        timeout: longest run in seconds.
    """

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    pass_fds: Sequence[int] = ()
    stdin: int | None = None
    capture: bool = True
    grace: float = 5.0
    timeout: float = math.inf


class Supervisor:
    """Runs one command for as long as a lease is held.

    Promises what `coordinate.process.GuardedChild` promises: when the lease is lost, or this process dies or hangs,
    every descendant of the command is dead before the lease can be granted to somebody else.
    """

    def __init__(self, lease: Lease, hub: Hub, clock: Clock, command: Command) -> None:
        self._lease = lease
        self._hub = hub
        self._clock = clock
        self._command = command
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""
        self.redact: Callable[[str], str] = str
        self.on_line: Callable[[str], object] | None = None
        self.on_pass: Callable[[], object] | None = None

    @property
    def tail(self) -> str:
        """Return the last lines of output."""
        return "\n".join(self._lines)

    def run(self) -> int:
        """Run to the end and return the exit code, negative for a signal.

        Raises:
            LeaseLost: the lease was lost; the command and its descendants are dead.
            Interrupted: a signal asked us to stop; they are dead.
            WaitTimeout: it ran longer than allowed; they are dead.
        """
        self._lease.check()
        reader, writer = os.pipe() if self._command.capture else (-1, -1)
        try:
            with self._ended(self._start(writer)) as child:
                if writer >= 0:
                    os.close(writer)
                    writer = -1
                code = self._attend_renewed(child, reader)
            self._read_rest(reader)
            return code
        finally:
            for descriptor in (reader, writer):
                if descriptor >= 0:
                    os.close(descriptor)

    def _start(self, writer: int) -> GuardedChild:
        command, locks = self._command, self._lease.descriptors()
        stdin = subprocess.DEVNULL if command.capture and command.stdin is None else command.stdin
        output = writer if command.capture else None
        deadline = self._lease.deadline - self._margin
        try:
            return GuardedChild(
                list(command.argv),
                deadline=deadline,
                env=command.env,
                cwd=command.cwd,
                stdin=stdin,
                stdout=output,
                stderr=output,
                pass_fds=command.pass_fds,
                hold_fds=locks,
                unlock_fds=locks,
            )
        except OSError as error:
            self._lease.check_alive()
            if isinstance(error, TimeoutError) and self._clock.now() >= deadline:
                # Renewed meanwhile, but a guardian that is still starting cannot be told. Nobody's failure.
                message = f"{command.argv[0]} could not be started before the lease's deadline: too slow a machine"
                raise LeaseLost(message) from error
            message = f"{command.argv[0]} cannot be started: {error.strerror or error}"
            raise CommandFailed(message, CANNOT_START, message) from error

    @contextlib.contextmanager
    def _ended(self, child: GuardedChild) -> Iterator[GuardedChild]:
        """End the child with the block; a lease whose command cannot be ended is left to lapse, never given back."""
        try:
            yield child
        finally:
            try:
                child.close()
            except TimeoutError as error:
                self._lease.abandon()
                message = f"{self._command.argv[0]} or something it started cannot be killed; the lease lapses"
                raise LeaseLost(message, self._lease.lost) from error

    def _attend_renewed(self, child: GuardedChild, reader: int) -> int:
        telling = threading.Lock()

        def extend(_: float = 0.0) -> None:
            # Read and told under one lock: of two threads the one that comes last must not tell the older deadline.
            with telling:
                child.extend(self._lease.deadline - self._margin)

        self._lease.on_renewed(extend)
        try:
            # Between the start and this line a renewal may have gone by.
            extend()
            return self._attend(child, reader)
        finally:
            self._lease.off_renewed(extend)

    @property
    def _margin(self) -> float:
        """Return how long before the lease's deadline the guardian kills: killing takes a busy machine a while."""
        timing = self._lease.timing
        return min(0.5, (timing.ttl - timing.renew_deadline) / 4)

    def _attend(self, child: GuardedChild, reader: int) -> int:
        ends_at = self._clock.now() + self._command.timeout
        while (code := child.poll()) is None:
            try:
                self._lease.check_alive()
                self._hub.check_interrupt()
                self._check_time(ends_at)
            except Interrupted as stop:
                self._end(child, reader, signal.SIGINT if stop.signum == signal.SIGINT else signal.SIGTERM)
                raise
            except Exception:
                self._end(child, reader, signal.SIGTERM)
                raise
            self._nap(child, reader)
            if self.on_pass is not None:
                self.on_pass()
        if child.deadline_passed:
            self._lease.check_alive()
            message = f"{self._command.argv[0]} was killed because no renewal reached its guardian in time"
            raise LeaseLost(message)
        return code

    def _check_time(self, ends_at: float) -> None:
        if self._clock.now() >= ends_at:
            message = f"{self._command.argv[0]} ran longer than {self._command.timeout:g} s and was stopped"
            raise WaitTimeout(message)

    def _end(self, child: GuardedChild, reader: int, signum: int) -> None:
        """Stop the command with grace, but never past the lease's deadline; keep reading so that it can end."""
        left = max(0.0, self._lease.deadline - self._clock.now() - 2 * self._margin)
        grace = min(self._command.grace, left)
        child.stop(grace, signum)
        give_up = self._clock.now() + grace + 1.0
        while child.poll() is None and self._clock.now() < give_up:
            self._nap(child, reader)
        child.kill()

    def _nap(self, child: GuardedChild, reader: int) -> None:
        poller = select.poll()
        with contextlib.suppress(ValueError):
            poller.register(child.fileno(), select.POLLIN)
        if reader >= 0:
            poller.register(reader, select.POLLIN)
        ready = [descriptor for descriptor, _ in poller.poll(_LONGEST_NAP * 1000)]
        if reader in ready and not self._read(reader):
            # Every writer has closed its end: nothing more to read, only the child's end to wait for.
            child.wait(_LONGEST_NAP)

    def _read(self, reader: int) -> bool:
        data = os.read(reader, 65536)
        # Progress bars redraw their line with a carriage return; each state is a line of its own to us.
        *lines, self._partial = (self._partial + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._partial) > _LINE_LIMIT or (not data and self._partial):
            self._take(self._partial)
            self._partial = b""
        return bool(data)

    def _read_rest(self, reader: int) -> None:
        if reader < 0:
            return
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):
            while self._read(reader):
                pass

    def _take(self, line: bytes) -> None:
        text = self.redact(line.decode(errors="replace").rstrip())[:_LINE_LIMIT]
        if text and (self.on_line is None or self.on_line(text) is not False):
            self._lines.append(text)


def exit_code(code: int) -> int:
    """Return what a shell would: 128 + n for a signal."""
    return 128 - code if code < 0 else code


def failure(name: str, code: int, output: str) -> CommandFailed:
    """Return the error for a command that ended badly."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return CommandFailed(f"{name} {how}", exit_code(code), output)
