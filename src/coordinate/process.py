"""Guarded child processes: a command that cannot outlive its deadline, whatever happens to us.

`GuardedChild` is the supervisor's end and knows a deadline, nothing of leases: who renews a lease calls
`GuardedChild.extend`. The other end is a guardian (`coordinate._guard`), the command's parent. Linux only.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Self

from coordinate import _guard
from coordinate._guard import now
from coordinate._orders import check, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["GuardedChild", "become_subreaper", "now"]

_START = 10.0  # seconds a guardian may take to start its command
_ANSWER = 1.0  # seconds a guardian may take to answer, before we do its work
_FAREWELL = 0.1  # seconds between a guardian's last word and its end
_OVERDUE = 0.5  # seconds after the deadline at which we no longer trust the guardian


class _Family:
    """The guardians of this process, and whether their orphans come to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.guardians: set[int] = set()
        self.subreaper = False


_family = _Family()
# A forked copy has no guardians, and nobody in it would ever free the lock.
os.register_at_fork(after_in_child=lambda: vars(_family).update(vars(_Family())))


def become_subreaper() -> None:
    """Make this process adopt what a killed guardian leaves behind, so that it can be killed, too.

    For programs that own their process, such as an entrypoint. Then `GuardedChild` finds and ends every
    descendant of a command even when somebody sends SIGKILL to the guardian alone. It does **not** reap other
    orphans, which also come to this process. Such a program must start no child in another session except
    through `GuardedChild`: it could not be told from an orphan, and would be killed. Forks do not inherit it.
    Raises `OSError` when the kernel refuses. Call it once, first thing in ``main()``: ``become_subreaper()``.
    """
    _guard.load_prctl()(_guard.PR_SET_CHILD_SUBREAPER, 1)
    _family.subreaper = True


class GuardedChild:
    """A command whose every descendant is dead soon after the deadline, also when we are stopped or killed.

    It promises: at the deadline, at our death (SIGKILL included) and after `kill` or `close`, the command and
    all below it receive SIGKILL within milliseconds, also what called ``setsid`` or was orphaned. So does
    what a command leaves behind when it ends by itself. Once an exit code is returned, no descendant is alive
    and the guardian is gone with its copies of ``hold_fds``.

    It does **not** promise: to end *before* the deadline (keep a margin of some 100 ms for a busy machine);
    to kill a setuid program or one stuck in the kernel (both are waited for, no end is reported before); to
    reach grandchildren when the guardian *itself* is sent SIGKILL, unless `become_subreaper` was called (the
    command dies even then, -9 is reported). The command has no controlling terminal: Ctrl-C reaches only us.

    Methods may be called from several threads; none waits for a guardian that hangs. In a forked copy of this
    process the object is dead: `close` frees descriptors, all that would act raises `ChildProcessError`.

    Args:
        argv: The command and its arguments, found through ``PATH`` and started without a shell.
        deadline: Instant of `now`, in seconds, after which everything is killed. See `extend`.
        env: The complete environment of the command; None means ours. Nothing is added to it.
        cwd: Its working directory; None means ours.
        stdin: As in `subprocess.Popen`: None (inherit), a descriptor, a file, ``PIPE`` or ``DEVNULL``.
        stdout: Likewise.
        stderr: Likewise; ``subprocess.STDOUT`` is possible.
        pass_fds: Further descriptors (above 2) that the command inherits.
        hold_fds: Descriptors (above 2) that the guardian keeps open to its end, hidden from the command.
        unlock_fds: Those of ``hold_fds`` to free with ``flock(LOCK_UN)`` when all descendants are dead and
            the deadline has passed or we are dead, so that a hung supervisor blocks nobody. Give a lock to
            one child only, else it is free as soon as the first of them is dead.

    Attributes:
        pid: Process id of the command, which leads its own session and group; not valid after its end.
        exec_errno: Why it could not be executed (an `errno` number); None when it was, whatever its code.
        deadline_passed: Whether the deadline ended it, as known at the last `poll` or `wait`.
        stdin, stdout, stderr: Our ends of what was given as ``PIPE``, else None.

    Raises:
        TypeError: ``argv`` is a single string.
        ValueError: ``argv`` is empty or contains a null byte, the deadline is not finite, descriptors clash.
        OSError: The guardian cannot be started, or ended early (`ChildProcessError`); the deadline passed
            before the command was started, or no answer came (`TimeoutError`); this is not Linux.

    Example:
        >>> with GuardedChild(["sleep", "60"], deadline=now() + 30) as child:
        ...     handed_over = child.extend(now() + 30)  # after every renewal of the lease
        ...     asked = child.stop(grace=5)
        ...     child.wait(timeout=10)
        -15
    """

    def __init__(  # noqa: PLR0913 - the keywords of subprocess.Popen, which everybody knows
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        hold_fds: Sequence[int] = (),
        unlock_fds: Sequence[int] = (),
    ) -> None:
        check(argv, pass_fds, hold_fds, unlock_fds)
        require(math.isfinite(deadline), "the deadline must be a finite instant of now()")
        self._supervisor, self._deadline = os.getpid(), float(deadline)
        self._lock = threading.RLock()  # for the state below; held for a bounded time
        self._send_lock = threading.Lock()  # orders sending and closing; never held while anything waits
        self.pid = self._start_time = 0
        self.exec_errno: int | None = None
        self._exited: int | None = None
        self._code: int | None = None
        self._end_of_file = self.deadline_passed = self._closed = False

        def launch(program: list[str], fds: list[int]) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*program, *argv], env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr,
                pass_fds=[*fds, *pass_fds, *hold_fds], start_new_session=True,
            )  # fmt: skip

        words = {"pass": pass_fds, "hold": hold_fds, "unlock": unlock_fds}
        lists = " ".join(f"{word}={','.join(map(str, fds))}" for word, fds in words.items())
        self._socket, guardian = _start_guardian(launch, f"deadline={self._deadline!r} {lists}")
        self._guardian = guardian
        self.stdin, self.stdout, self.stderr = guardian.stdin, guardian.stdout, guardian.stderr
        self._await_start()

    def _await_start(self) -> None:
        """Wait until the command runs or could not be executed; leave nothing behind if neither happens."""
        limit = min(now() + _START, self._deadline + _OVERDUE)
        try:
            while self.poll() is None and not (self.pid or self.deadline_passed) and now() < limit:
                self._await_news(limit - now())
            if not self.pid:
                kind = TimeoutError if self.deadline_passed or self._code is None else ChildProcessError
                message = "the guardian did not start the command"
                raise kind(message)  # noqa: TRY301
        except BaseException:
            self._replace_guardian(_ANSWER)
            self._close_descriptors()
            raise

    def extend(self, deadline: float) -> bool:
        """Replace the deadline by another instant of `now`, in seconds; the newest one counts.

        Returns whether the guardian was told: False when the child has ended or the guardian hangs. It is not
        acknowledged, and what comes after the old deadline is too late: send it well before, and take
        `deadline_passed` for a lost lease. Raises `ValueError` when the deadline is not finite.
        """
        require(math.isfinite(deadline), "the deadline must be a finite instant of now()")
        self._deadline = float(deadline)
        return self._send(f"deadline {self._deadline!r}")

    def signal(self, signum: int) -> bool:
        """Send a signal to the command's process group; what left the group does not get it, see `kill`.

        Returns whether the guardian was told. Raises `ValueError` when there is no such signal.
        """
        require(signum in signals.valid_signals(), f"there is no signal {signum!r}")
        return self._send(f"signal {int(signum)}")

    def stop(self, grace: float, signum: int = signals.SIGTERM) -> bool:
        """Ask the command to end (one signal to its group), and kill everything ``grace`` seconds later.

        Does not wait. The deadline counts if it is earlier; of several calls the earliest end counts, and each
        sends its signal: many programs take a second one for "at once". Returns whether the guardian was told:
        if not, call `kill`. Raises `ValueError` when the grace is negative or there is no such signal.
        """
        require(0 <= grace < math.inf, f"grace must be a number of seconds, at least 0, not {grace!r}")
        require(signum in signals.valid_signals(), f"there is no signal {signum!r}")
        return self._send(f"stop {float(grace)!r} {int(signum)}")

    def kill(self, timeout: float = _ANSWER) -> int | None:
        """Kill every descendant now, and return the exit code as `poll` does.

        What the guardian has not done after ``timeout`` seconds is done from here in as many again, and it is
        killed, too. None means that something still lives: do not give the lease back, call it again.
        """
        self._send("kill")
        return self._replace_guardian(timeout) if self.wait(timeout) is None else self._code

    def fileno(self) -> int:
        """Return a descriptor that is readable when `poll` may have news; ValueError when closed."""
        require(not self._closed, "the guarded child is closed")
        return self._socket.fileno()

    def poll(self) -> int | None:
        """Return the exit code, or None while anything is alive; waits at most some 100 ms.

        A signal is negative; 127 is "not found", 126 "cannot be executed" (see `exec_errno`); -9 also stands
        for a code that a killed guardian took along. If the guardian hangs beyond the deadline, this kills.
        """
        self._check_owner()
        with self._lock:
            if self._code is not None:
                return self._code
            self._read_messages()
            patience = _FAREWELL if self._exited is not None or self._end_of_file else 0
            if self._guardian_ended(patience):
                return self._conclude(now() + _ANSWER)
            if now() >= self._deadline + _OVERDUE:
                # It is we who kill now: a guardian that comes to reports our SIGKILL as the command's own end.
                self.deadline_passed |= self._exited is None
                return self._replace_guardian(_ANSWER)
            return None

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, at most ``timeout`` seconds (None: without limit); return what `poll` returns."""
        limit = math.inf if timeout is None else now() + timeout
        while (code := self.poll()) is None and (left := limit - now()) > 0:
            self._await_news(left)
        return code

    def close(self) -> None:
        """Kill what is left, reap the guardian and free all descriptors, ``PIPE`` ends included.

        May be called again. Raises `TimeoutError` and stays open when something could not be killed, see
        `kill`. In a forked copy it frees the copy's descriptors and touches no process.
        """
        if os.getpid() != self._supervisor:
            self._send_lock = threading.Lock()  # another thread may have held it at the fork
        elif not self._closed and self.kill() is None:
            message = f"descendants of process {self.pid} are still alive after SIGKILL"
            raise TimeoutError(message)
        self._close_descriptors()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GuardedChild pid={self.pid} code={self._code}>"  # no arguments: they may contain secrets

    def _check_owner(self) -> None:
        if os.getpid() != self._supervisor:
            message = "a guarded child belongs to the process that started it, not to its forked copies"
            raise ChildProcessError(message)

    def _send(self, line: str) -> bool:
        self._check_owner()
        with self._send_lock:
            try:
                return self._socket.send(line.encode(), socket.MSG_NOSIGNAL) > 0
            except OSError:  # full: the guardian hangs; broken: it has ended; closed
                return False

    def _await_news(self, seconds: float) -> None:
        poller = select.poll()
        with contextlib.suppress(ValueError):  # closed by another thread, which then knows the code
            poller.register(self._socket, select.POLLIN)
            poller.poll(1000 * max(0.0, min(seconds, _guard.TICK)))

    def _read_messages(self) -> None:
        while not self._end_of_file:
            try:
                line = self._socket.recv(_guard.PACKET)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it ended without hearing our last word; its own are still to be read
                continue
            except OSError:
                line = b""
            self._end_of_file = not line
            self._hear(*line.decode().split())

    def _hear(self, verb: str = "", *values: str) -> None:
        if verb == "started":
            self.pid, self._start_time = int(values[0]), int(values[1])
        elif verb == "failed":
            self.pid, self.exec_errno = int(values[0]), int(values[1])
        elif verb == "deadline":
            self.deadline_passed = True
        elif verb == "exited":
            self._exited = int(values[0])

    def _guardian_ended(self, patience: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guardian.wait(patience)
        return self._guardian.returncode is not None

    def _replace_guardian(self, patience: float) -> int | None:
        """Do the guardian's work, because it does not: kill everything below it, then itself."""
        with self._lock:
            limit = now() + patience
            if self._code is None and not self._guardian_ended(0):
                root = [self._guardian.pid]
                if not _end_all(lambda: _guard.below(root, _guard.read_processes()), limit):
                    return None
                self._guardian.kill()
                if not self._guardian_ended(patience):
                    return None
            return self._conclude(limit)

    def _conclude(self, limit: float) -> int | None:
        """Settle the exit code once the guardian is gone, and end what it could not."""
        self._read_messages()
        with _family.lock:
            _family.guardians.discard(self._guardian.pid)
        if self._code is None and self._exited is None:
            if not _end_all(self._orphans, limit):
                return None
            self.deadline_passed |= now() >= self._deadline
            self._exited = -int(signals.SIGKILL)
        # The process that could not become the command may be swept before it can end with its own code.
        self._code = self._exited if self.exec_errno is None else _guard.exec_code(self.exec_errno)
        return self._code

    def _orphans(self) -> list[_guard.Process]:
        """What a killed guardian left: the command (not dead yet), and what came to us, if orphans do."""
        processes = _guard.read_processes()
        mine = _adopted(processes) if _family.subreaper else []
        mine += [p for p in processes if (p.pid, p.start) == (self.pid, self._start_time)]
        return mine + _guard.below([process.pid for process in mine], processes)

    def _close_descriptors(self) -> None:
        with self._send_lock:
            self._closed = True
            self._socket.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError):  # what was not flushed has no reader any more
                if stream is not None:
                    stream.close()


def _adopted(processes: list[_guard.Process]) -> list[_guard.Process]:
    """Our children in another session that are no guardians; a live guardian keeps its own orphans."""
    me, session = os.getpid(), os.getsid(0)
    with _family.lock:
        others = [process for process in processes if process.pid not in _family.guardians]
    return [process for process in others if process.parent == me and process.session != session]


def _end_all(find: Callable[[], list[_guard.Process]], limit: float) -> bool:
    """Kill what ``find`` returns until nothing is alive twice: a fork may hide from one look at /proc."""
    quiet = 0
    while quiet < 2:  # noqa: PLR2004 - twice, as said
        found = find()
        quiet = 0 if _guard.end_all(found) else quiet + 1
        for process in found:
            if process.parent == os.getpid() and not process.alive:
                with contextlib.suppress(ChildProcessError):  # somebody else reaps here, too
                    os.waitpid(process.pid, os.WNOHANG)
        if not quiet and now() >= limit:
            return False
        time.sleep(0 if quiet else _guard.SWEEP_PAUSE)
    return True


def _start_guardian(
    launch: Callable[[list[str], list[int]], subprocess.Popen[bytes]], words: str
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the guardian on one end of a socket that already holds its orders; return the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)  # never the number of a closed standard stream
    theirs.close()
    try:
        ours.setblocking(False)  # noqa: FBT003 - it has no keyword
        ours.send(f"start parent={os.getpid()} {words}".encode())
        with _family.lock:
            guardian = launch([sys.executable, "-I", "-S", _guard.__file__, str(channel)], [channel])
            _family.guardians.add(guardian.pid)
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(channel)
    return ours, guardian
