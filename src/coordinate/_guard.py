"""The guardian: a tiny program that stands between a supervisor and one command.

It is started as ``python -I -S _guard.py SOCKET COMMAND...`` in a session of its own, is the subreaper of
everything the command starts, and kills all of it when the supervisor dies or closes the socket, or when the
deadline passes. It imports nothing of ours, and runs on Python 3.10 to 3.14. `coordinate.process` is the
other end, and shares the functions that read and clear the process tree.

Messages are packets of a ``SOCK_SEQPACKET`` pair, one line of words each; an unknown message is ignored.

- To the guardian: ``start KEY=VALUE...`` (once), ``deadline T``, ``signal N``, ``stop GRACE N``, ``kill``.
- From it: ``started PID START`` or ``failed PID ERRNO``, ``deadline``, ``exited CODE``, then end of file.

``T`` is an instant of `now`, ``START`` the start time in ``/proc/PID/stat``, ``CODE`` an exit code or a
negative signal. The first message is in the socket before the guardian starts.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # the real one costs an import of typing at every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TICK = 1.0  # longest sleep in seconds: a wait does not count the time a machine was suspended
TICK_WITHOUT_PIDFD = 0.05  # old kernels: the supervisor's death is then seen by asking who our parent is
SWEEP_PAUSE = 0.005  # how long a sweep waits for news of a death before it looks at the tree again
PACKET = 65536
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def _find_clock() -> int:
    """The clock that counts suspended time, or the monotonic one where that does not exist."""
    try:
        time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return time.CLOCK_MONOTONIC
    return time.CLOCK_BOOTTIME


_CLOCK = _find_clock()


def now() -> float:
    """Return this instant on the clock that deadlines refer to, in seconds."""
    return time.clock_gettime(_CLOCK)


def load_prctl() -> Callable[[int, int], None]:
    """Return ``prctl(option, value)``, ready to be called after a fork; the call raises `OSError`."""
    import ctypes  # noqa: PLC0415 - costs milliseconds that only those who call pay

    function = ctypes.CDLL(None, use_errno=True).prctl
    function.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def prctl(option: int, value: int) -> None:
        if function(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")

    return prctl


class Process:
    """What ``/proc/PID/stat`` says about one process; `pid` and `start` together name it for ever."""

    __slots__ = ("alive", "parent", "pid", "session", "start")

    def __init__(self, pid: int, stat: bytes) -> None:
        fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may contain anything
        self.pid = pid
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.start = int(fields[19])
        # A leader that ended before its threads is shown as a zombie, too, and can still do harm.
        self.alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1


def read_process(pid: int) -> Process | None:
    """Return the process with this id, or None when there is none (or ``/proc`` hides it)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Process(pid, os.read(fd, 4096))
        finally:
            os.close(fd)
    except (OSError, ValueError):  # gone before the open, or before the read
        return None


def read_processes() -> list[Process]:
    """Return all processes that ``/proc`` shows; one that starts meanwhile may be missing."""
    names = os.listdir("/proc")  # noqa: PTH208 - importing pathlib would delay every start
    found = (read_process(int(name)) for name in names if name.isdigit())
    return [process for process in found if process is not None]


def below(roots: Iterable[int], processes: Iterable[Process]) -> list[Process]:
    """Return those of the processes that have one of the roots among their ancestors."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = list(roots)
    while todo:
        new = children.pop(todo.pop(), [])
        found += new
        todo += [process.pid for process in new]
    return found


def _open_pidfd(pid: int) -> int:
    """Return a pidfd; -1 when there is no such process, or no pidfd (old kernel, sandbox, limit reached)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def end_process(process: Process) -> None:
    """Send SIGKILL to exactly this process, never to a later one that got the same id."""
    fd = _open_pidfd(process.pid)
    try:
        same = read_process(process.pid)
        if same is None or same.start != process.start:
            return
        if fd >= 0:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # a setuid program may refuse: its end is awaited, not forced
    finally:
        if fd >= 0:
            os.close(fd)


def end_all(processes: Iterable[Process]) -> int:
    """Send SIGKILL to those that are alive; return how many there were."""
    alive = [process for process in processes if process.alive]
    for process in alive:
        end_process(process)
    return len(alive)


class Orders:
    """The configuration of one guardian, as the first message brings it."""

    def __init__(self, line: str) -> None:
        values = dict(word.split("=", 1) for word in line.split()[1:])
        self.deadline = float(values["deadline"])
        self.parent = int(values["parent"])
        self.pass_fds = self._numbers(values["pass"])
        self.hold_fds = self._numbers(values["hold"])
        self.unlock_fds = self._numbers(values["unlock"])

    @staticmethod
    def _numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",") if word]


def _environment() -> dict[bytes, bytes]:
    """The environment exactly as it was given to us: the interpreter may have added LC_CTYPE to its own."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - as above
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


def exec_code(number: int | None) -> int:
    """The exit code that a shell would give for an error of exec."""
    return NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE


def _default_signals() -> None:
    """Give every signal its default disposition and unblock it, as a program expects it from a shell."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Guardian:
    """One command and everything below it, kept alive until the deadline at the latest."""

    def __init__(self, channel: int, orders: Orders, command: list[str]) -> None:
        self._null = os.open(os.devnull, os.O_RDWR)
        while self._null <= 2:  # noqa: PLR2004 - where 0, 1 or 2 is closed, no pipe of ours may land there
            self._null = os.open(os.devnull, os.O_RDWR)
        self._channel = channel
        self._orders = orders
        self._command = command
        self._deadline = orders.deadline
        self._stop_at = float("inf")
        self._pid = 0
        self._start_time = 0
        self._start_reported = False
        self._status: int | None = None
        self._doomed = False
        self._orphaned = False
        self._prctl = load_prctl()
        self._environment = _environment()
        self._supervisor = _open_pidfd(orders.parent)
        self._tick = TICK if self._supervisor >= 0 else TICK_WITHOUT_PIDFD
        self._wake, wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._result, self._result_in = os.pipe()
        self._poller = select.poll()
        self._prepare(wake_in)

    def _prepare(self, wake_in: int) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        self._prctl(PR_SET_CHILD_SUBREAPER, 1)
        os.set_blocking(self._channel, False)
        for fd in (self._channel, *self._orders.hold_fds):
            os.set_inheritable(fd, False)  # noqa: FBT003 - it has no keyword
        for fd in (self._channel, self._wake, self._result, self._supervisor):
            if fd >= 0:
                self._poller.register(fd, select.POLLIN)

    def run(self) -> None:
        """Start the command, guard it to its end, and leave nothing of it behind."""
        try:
            if now() < self._deadline:
                self._start()
            while self._status is None and not self._doomed:
                self._turn()
        finally:
            self._sweep()
        if self._pid and not self._start_reported:  # it ended faster than we looked
            self._report_start()
        if self._orphaned or now() >= self._deadline:
            self._unlock()
        if self._status is not None:
            self._say(f"exited {os.waitstatus_to_exitcode(self._status)}")

    def _start(self) -> None:
        guardian = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become_command(guardian)
            finally:
                os._exit(NOT_EXECUTABLE)
        os.close(self._result_in)
        process = read_process(self._pid)  # not reaped yet, so it is there whatever became of it
        self._start_time = process.start if process else 0
        self._let_go()

    def _become_command(self, guardian: int) -> None:
        try:
            os.setsid()
            self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guardian:  # it died before we asked to die with it
                return
            _default_signals()
            os.execvpe(self._command[0], self._command, self._environment)  # noqa: S606 - no shell is the point
        except OSError as error:
            os.write(self._result_in, str(error.errno).encode())
            os._exit(exec_code(error.errno))

    def _let_go(self) -> None:
        """Close our copies of the command's descriptors: who reads them must see end of file when it does."""
        for fd in self._orders.pass_fds:
            os.close(fd)
        for fd in (0, 1, 2):
            os.dup2(self._null, fd)

    def _turn(self) -> None:
        """Wait for the next event and act on it; words that arrived are heard before the clock is asked."""
        for fd, _ in self._poller.poll(1000 * self._patience()):
            if fd == self._channel:
                while self._listen() and not self._doomed:
                    pass
            elif fd == self._result:
                self._report_start()
        self._reap()
        if os.getppid() != self._orders.parent:  # its pidfd woke us, but this is the truth on any kernel
            self._orphaned = self._doomed = True
        if self._status is None and now() >= self._deadline:
            self._say("deadline")
            self._doomed = True
        self._doomed = self._doomed or now() >= self._stop_at

    def _patience(self) -> float:
        return max(0.0, min(self._tick, self._deadline - now(), self._stop_at - now()))

    def _listen(self) -> bool:
        """Act on one message; return whether there may be more."""
        try:
            line = os.read(self._channel, PACKET).decode(errors="replace")
        except BlockingIOError:
            return False
        except OSError:  # reset: the other end closed without reading our last words
            line = ""
        if not line:
            self._doomed = True
            return False
        try:
            self._obey(*line.split())
        except (TypeError, ValueError):  # not a message of ours, or one of a later version
            return True
        return True

    def _obey(self, verb: str, value: str = "", number: str = "") -> None:
        if verb == "deadline":
            deadline = float(value)
            if deadline < float("inf"):  # no word lifts it for ever
                self._deadline = deadline
        elif verb == "kill":
            self._doomed = True
        elif verb == "signal":
            self._signal(int(value))
        elif verb == "stop":
            self._stop_at = min(self._stop_at, now() + float(value))
            self._signal(int(number or signal.SIGTERM))
            self._signal(signal.SIGCONT)  # a stopped process would not see the request

    def _signal(self, number: int) -> None:
        # Until it is reaped nobody else can have its id. Before it called setsid the group does not exist.
        if self._pid and self._status is None:
            try:
                os.killpg(self._pid, number)
            except OSError:
                return

    def _report_start(self) -> None:
        """Say what became of the exec: the pipe closes without a word when it worked."""
        self._start_reported = True
        self._poller.unregister(self._result)
        error = os.read(self._result, 64).decode()
        self._say(f"failed {self._pid} {error}" if error else f"started {self._pid} {self._start_time}")

    def _reap(self) -> bool:
        """Collect the dead; return whether any child is left; exact, as orphans become children at once."""
        try:  # noqa: SIM105 - importing contextlib would delay every start
            os.read(self._wake, PACKET)  # emptied before we look, so that no later death goes unnoticed
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._status = status

    def _sweep(self) -> None:
        """Kill every descendant; return when the kernel says that we have none."""
        news = select.poll()
        news.register(self._wake, select.POLLIN)
        while self._reap():
            self._signal(signal.SIGKILL)  # a whole group at once, before it can fork again
            end_all(below([os.getpid()], read_processes()))
            while self._reap() and news.poll(1000 * SWEEP_PAUSE):
                pass

    def _unlock(self) -> None:
        """Free the locks that the supervisor shares with us: it is dead, or hangs beyond its deadline."""
        if self._orders.unlock_fds:
            import fcntl  # noqa: PLC0415 - only the file backend needs it

            for fd in self._orders.unlock_fds:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _say(self, line: str) -> None:
        try:
            os.write(self._channel, line.encode())
        except OSError:  # nobody listens any more
            return


def main(argv: list[str]) -> None:
    """Run as a program: ``argv`` is the socket's number and the command."""
    channel = int(argv[0])
    Guardian(channel, Orders(os.read(channel, PACKET).decode()), argv[1:]).run()
    os._exit(0)  # nothing is left to clean up, and the supervisor waits


if __name__ == "__main__":
    main(sys.argv[1:])
