"""Guarded children: real processes, real signals, real deaths."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from coordinate import _guard
from coordinate import process as process_module
from coordinate.process import GuardedChild, now
from tests.unit.process_helpers import (
    PATIENCE,
    alive,
    any_alive,
    eventually,
    guardian_of,
    pids_in,
    program,
    start_supervisor,
    try_lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FAMILY = 4
LONG = 300.0
"""A deadline that no test reaches, in seconds."""
LIBC = 0b11 << 31
"""Signals 32 and 33, which the C library keeps to itself: inherited dispositions cannot be changed."""


def guard(*argv: str, lifetime: float = LONG) -> GuardedChild:
    """Start a guarded child with a deadline so many seconds from now."""
    return GuardedChild(argv, deadline=now() + lifetime)


def described(stdout_of: GuardedChild) -> dict[str, object]:
    """Return what the program `describe` printed."""
    assert stdout_of.stdout is not None
    return json.loads(stdout_of.stdout.read())


def open_descriptors() -> list[str]:
    """Return the descriptors of this process, and the one that reading them takes."""
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder in which processes leave their ids."""
    path = tmp_path / "pids"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def nothing_left(folder: Path) -> Iterator[None]:
    """Whatever a test starts is dead at its end, and every test fails that leaves a child unreaped."""
    before = set(psutil.Process().children())  # servers of other tests in the same worker
    yield
    for path in folder.iterdir():
        if alive(int(path.name)):
            os.kill(int(path.name), signal.SIGKILL)
    assert set(psutil.Process().children()) <= before


@pytest.fixture
def supervisors() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Supervisors that are killed and reaped when the test is over."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for supervisor in started:
        supervisor.kill()
        supervisor.wait()


# how it ends


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_passed_through(code: int) -> None:
    """A command's own code is the child's code."""
    with guard("sh", "-c", f"exit {code}") as child:
        assert child.wait(PATIENCE) == code
        assert child.poll() == code
        assert not child.deadline_passed


def test_the_exit_code_is_not_lost_when_the_guardian_ends_before_it_hears_our_last_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A renewal told in the very moment of the end: the kernel then reports a reset ahead of the guardian's words."""
    deaf = tmp_path / "deaf_guard.py"
    deaf.write_text(
        "import importlib.util, select, sys\n"
        f"spec = importlib.util.spec_from_file_location('guard', {_guard.__file__!r})\n"
        "guard = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(guard)\n"
        "say = guard.Guardian._say\n"
        "def late(self, line):\n"
        "    if line.startswith('exited'):\n"
        f"        open({str(tmp_path / 'over')!r}, 'w').close()\n"
        "        select.select([self._channel], [], [])\n"
        "    say(self, line)\n"
        "guard.Guardian._say = late\n"
        "guard.main(sys.argv[1:])\n"
    )
    monkeypatch.setattr(_guard, "__file__", str(deaf))
    with guard("sh", "-c", "exit 7") as child:
        assert eventually((tmp_path / "over").exists)
        assert child.extend(now() + LONG)
        assert eventually(lambda: not alive(child._guardian.pid))
        assert child.wait(PATIENCE) == 7


def test_death_by_a_signal_is_a_negative_code() -> None:
    """As in subprocess, a signal's number is negated."""
    with guard("sh", "-c", "kill -USR1 $$") as child:
        assert child.wait(PATIENCE) == -signal.SIGUSR1


@pytest.mark.parametrize(
    ("command", "code", "number"),
    [
        ("/nonexistent", 127, errno.ENOENT),
        ("no-such-command", 127, errno.ENOENT),
        ("/etc", 126, errno.EACCES),
    ],
)
def test_a_command_that_cannot_be_executed_has_the_code_a_shell_gives(command: str, code: int, number: int) -> None:
    """127 is not found, 126 not executable, and the reason is kept."""
    with guard(command) as child:
        assert child.wait(PATIENCE) == code
        assert child.exec_errno == number


def test_a_commands_own_127_is_not_mistaken_for_not_found() -> None:
    """The reason is None when the command ran."""
    with guard("sh", "-c", "exit 127") as child:
        assert (child.wait(PATIENCE), child.exec_errno) == (127, None)


def test_the_descriptor_becomes_readable_when_the_command_ends() -> None:
    """A selector can wait for a guarded child."""
    with guard("sleep", "600") as child:
        poller = select.poll()
        poller.register(child, select.POLLIN)
        assert child.poll() is None
        assert poller.poll(0) == []
        child.kill()
        assert poller.poll(1000 * PATIENCE)
    with pytest.raises(ValueError, match="closed"):
        child.fileno()


def test_a_wait_with_a_timeout_returns_none_while_the_command_runs() -> None:
    """A bounded wait is bounded."""
    with guard("sleep", "600") as child:
        start = now()
        assert child.wait(0.05) is None
        assert 0.05 <= now() - start < PATIENCE


# what ends it


def test_the_death_of_the_supervisor_kills_every_descendant(
    folder: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    """SIGKILL of the supervisor alone ends the command, its session-leading child and its daemon."""
    supervisors.append(start_supervisor(folder, lifetime=LONG))
    pids = pids_in(folder, FAMILY)
    supervisors[0].kill()
    assert eventually(lambda: not any_alive(pids))


def test_the_death_of_the_supervisors_process_group_kills_every_descendant(
    folder: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    """The guardian is outside of the group, so it survives to do its work."""
    supervisors.append(start_supervisor(folder, lifetime=LONG))
    pids = pids_in(folder, FAMILY)
    os.killpg(supervisors[0].pid, signal.SIGKILL)
    assert eventually(lambda: not any_alive(pids))


def test_a_stopped_supervisor_loses_its_child_and_its_lock_at_the_deadline(
    folder: Path, tmp_path: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    """The lock is freed for others, and not before every descendant is dead."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    told = tmp_path / "deadline"
    supervisors.append(start_supervisor(folder, lifetime=LONG, lock=str(tmp_path / "lock"), shorten=str(told)))
    pids = pids_in(folder, FAMILY)
    supervisors[0].send_signal(signal.SIGUSR1)
    assert eventually(lambda: told.exists() and told.read_text())
    supervisors[0].send_signal(signal.SIGSTOP)

    def free_and_all_dead() -> bool:
        if not try_lock(lock):
            return False
        assert not any_alive(pids), "the lock was free while descendants lived"
        return True

    assert eventually(free_and_all_dead)
    assert now() >= float(told.read_text())
    os.close(lock)


def test_a_forked_copy_of_the_supervisor_saves_neither_the_child_nor_the_lock(
    folder: Path, tmp_path: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    """The copy keeps socket and lock open, yet only the supervisor's own life counts."""
    copy_file, lock_file = tmp_path / "copy", tmp_path / "lock"
    supervisors.append(start_supervisor(folder, lifetime=LONG, fork=str(copy_file), lock=str(lock_file)))
    pids = pids_in(folder, FAMILY)
    assert eventually(lambda: copy_file.exists() and copy_file.read_text())
    copy = int(copy_file.read_text())
    (folder / str(copy)).touch()  # so that it is killed at the end
    supervisors[0].kill()
    assert eventually(lambda: not any_alive(pids))
    assert alive(copy)
    with lock_file.open() as file:
        assert eventually(lambda: try_lock(file.fileno()))


def test_the_deadline_ends_everything_and_is_reported(folder: Path) -> None:
    """A live supervisor learns why its child died."""
    with GuardedChild(program("family", folder), deadline=now() + LONG) as child:
        pids = pids_in(folder, FAMILY)
        deadline = now() + 0.1
        assert child.extend(deadline)
        assert child.wait(PATIENCE) == -signal.SIGKILL
        assert deadline <= now() < deadline + PATIENCE
        assert child.deadline_passed
        assert not any_alive(pids)


def test_an_extension_keeps_the_command_alive_beyond_its_first_deadline() -> None:
    """Only the newest word about the deadline counts."""
    with guard("sleep", "600") as child:
        first = now() + 2.0
        assert child.extend(first)
        assert child.extend(now() + LONG)
        assert child.wait(first - now() + 0.3) is None
        assert now() > first
        assert alive(child.pid)


def test_a_polite_command_ends_by_its_own_code_when_asked_to_stop() -> None:
    """The grace is used."""
    with guard("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done") as child:
        assert child.stop(PATIENCE)
        assert child.wait(PATIENCE) in {3, -signal.SIGTERM}  # the second: before it set its trap


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_sends_one_signal_and_that_one(signum: signal.Signals) -> None:
    """A second one means "at once" to many programs."""
    script = "import signal, sys, time; got = []; "
    script += "[signal.signal(n, lambda n, _: got.append(n)) for n in (signal.SIGINT, signal.SIGTERM)]; "
    script += "print('ready', flush=True)\nwhile not got: time.sleep(0.01)\ntime.sleep(0.5); print(*got)"
    with GuardedChild([sys.executable, "-c", script], deadline=now() + LONG, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert child.stop(PATIENCE, signum)
        assert child.stdout.read().split() == [str(int(signum)).encode()]
        assert child.wait(PATIENCE) == 0


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(folder: Path) -> None:
    """Not earlier, and not much later."""
    with GuardedChild(program("stubborn", folder), deadline=now() + LONG) as child:
        pids_in(folder, 1)
        start = now()
        assert child.stop(0.3)
        assert child.stop(30)  # the earliest end counts
        assert child.wait(PATIENCE) == -signal.SIGKILL
        assert 0.3 <= now() - start < PATIENCE
        assert not child.deadline_passed


def test_the_deadline_cuts_the_grace_short(folder: Path) -> None:
    """A stop never prolongs a life."""
    with GuardedChild(program("stubborn", folder), deadline=now() + LONG) as child:
        pids_in(folder, 1)
        child.extend(now() + 0.2)
        child.stop(LONG)
        assert child.wait(PATIENCE) == -signal.SIGKILL
        assert child.deadline_passed


def test_processes_that_fork_while_they_are_killed_are_all_dead(folder: Path) -> None:
    """A chain of fifty forks across many sessions is killed while it grows."""
    for count in (1, 25, 50):
        with GuardedChild(program("multiply", folder, 50), deadline=now() + LONG) as child:
            pids_in(folder, count)
            assert child.kill() == -signal.SIGKILL
        assert not any_alive(int(path.name) for path in folder.iterdir())
        for path in folder.iterdir():
            path.unlink()


def test_what_a_command_leaves_behind_is_dead_when_its_end_is_reported(folder: Path) -> None:
    """A daemon must not outlive the lease, also when all went well."""
    with GuardedChild(program("leave", folder), deadline=now() + LONG) as child:
        assert child.wait(PATIENCE) == 7
        assert not any_alive(pids_in(folder, 1))


def test_a_signal_reaches_the_commands_process_group() -> None:
    """Forwarding works, and a signal that does not exist is refused."""
    with guard("sleep", "600") as child:
        with pytest.raises(ValueError, match="no signal"):
            child.signal(4242)
        assert child.signal(signal.SIGINT)
        assert child.wait(PATIENCE) == -signal.SIGINT


def test_closing_kills_what_still_runs_and_may_be_repeated(folder: Path) -> None:
    """The end of the with block is the end of everything."""
    with GuardedChild(program("family", folder), deadline=now() + LONG) as child:
        pids = pids_in(folder, FAMILY)
    assert not any_alive(pids)
    child.close()
    assert child.poll() == child.kill() == -signal.SIGKILL
    assert not child.extend(now() + 1)
    assert not child.signal(signal.SIGTERM)
    assert "family" not in repr(child)


def test_a_child_that_is_forgotten_is_killed(folder: Path) -> None:
    """Its socket closes with the object, which the guardian sees."""
    child = GuardedChild(program("family", folder), deadline=now() + LONG)
    pids = pids_in(folder, FAMILY)
    guardian = psutil.Process(guardian_of(child))
    with pytest.warns(ResourceWarning):  # noqa: PT031 - the first statement frees it, the second makes sure
        del child
        gc.collect()
    assert eventually(lambda: not any_alive(pids))
    guardian.wait(PATIENCE)


def test_the_guardian_ignores_the_signals_of_a_terminal_and_of_an_init() -> None:
    """What is sent to everybody at once must not end the guard before the guarded."""
    with guard("sleep", "600") as child:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guardian_of(child), number)
        assert child.wait(0.1) is None
        assert alive(child.pid)


# when the guardian itself is hit


def test_a_stopped_guardian_does_not_save_its_descendants(folder: Path) -> None:
    """kill() does the guardian's work when it does not answer."""
    with GuardedChild(program("family", folder), deadline=now() + LONG) as child:
        pids, guardian = pids_in(folder, FAMILY), guardian_of(child)
        os.kill(guardian, signal.SIGSTOP)
        assert child.kill(0.1) == -signal.SIGKILL
        assert not any_alive([*pids, guardian])


def test_a_guardian_that_sleeps_over_the_deadline_is_replaced(folder: Path) -> None:
    """Whoever waits or polls notices that the deadline passed without an answer."""
    with GuardedChild(program("family", folder), deadline=now() + LONG) as child:
        pids, guardian = pids_in(folder, FAMILY), guardian_of(child)
        os.kill(guardian, signal.SIGSTOP)
        child.extend(now() + 0.1)
        assert child.wait(PATIENCE) == -signal.SIGKILL
        assert child.deadline_passed
        assert not any_alive([*pids, guardian])


def test_a_replaced_guardian_that_comes_to_does_not_hide_that_the_deadline_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finds the command killed by us and reports a death by SIGKILL: that is no exit code of the command's own."""
    real = process_module._end_all

    def end_all_and_wake(find: Callable[[], list[_guard.Process]], limit: float) -> bool:
        ended = real(find, limit)
        os.kill(guardian, signal.SIGCONT)
        os.waitid(os.P_PID, guardian, os.WEXITED | os.WNOWAIT)  # it has said all that it has to say
        return ended

    with guard("sleep", "600") as child:
        guardian = guardian_of(child)
        os.kill(guardian, signal.SIGSTOP)
        monkeypatch.setattr(process_module, "_end_all", end_all_and_wake)
        child.extend(now() + 0.1)
        assert child.wait(PATIENCE) == -signal.SIGKILL
        assert child.deadline_passed


def test_sending_never_blocks_on_a_stopped_guardian() -> None:
    """A full socket is an answer: the guardian hangs."""
    with guard("sleep", "600") as child:
        os.kill(guardian_of(child), signal.SIGSTOP)
        assert eventually(lambda: not child.extend(now() + LONG))
        assert child.kill(0.1) == -signal.SIGKILL


def test_a_killed_guardian_takes_the_command_along_and_is_reported() -> None:
    """The parent death signal is the second line."""
    with guard("sleep", "600") as child:
        os.kill(guardian_of(child), signal.SIGKILL)
        assert eventually(lambda: not alive(child.pid))  # before we ask for the code, which kills, too
        assert child.wait(PATIENCE) == -signal.SIGKILL
        assert not child.deadline_passed


def test_a_subreaper_finds_the_orphans_of_a_killed_guardian(
    folder: Path, tmp_path: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    """A program that owns its process leaves nothing alive, and no zombie, even then."""
    result = tmp_path / "result"
    supervisors.append(start_supervisor(folder, lifetime=LONG, subreaper=True, result=str(result)))
    pids = pids_in(folder, FAMILY)
    (guardian,) = psutil.Process(supervisors[0].pid).children()
    guardian.kill()
    assert eventually(lambda: result.exists() and result.read_text() == "-9")
    assert not any_alive(pids)
    assert psutil.Process(supervisors[0].pid).children() == []


# what the command gets


def test_the_command_sees_nothing_of_the_guard(tmp_path: Path) -> None:
    """Environment, descriptors, signals, session and folder are those of a clean start."""
    environment = {"PATH": os.environ["PATH"], "LANG": "C", "COLOUR": "gr\udcfcn"}  # Python adds LC_CTYPE
    with (tmp_path / "held").open("w") as held, (tmp_path / "passed").open("w") as passed:
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD])
        try:
            child = GuardedChild(
                program("describe"), deadline=now() + LONG, env=environment, cwd=tmp_path,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                pass_fds=[passed.fileno()], hold_fds=[held.fileno()],
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        with child:
            facts = described(child)
            assert child.wait(PATIENCE) == 0
        assert facts["fds"] == [0, 1, 2, passed.fileno()]
    entries = str(facts["environment"]).encode("latin-1").decode(errors="surrogateescape").split("\0")
    assert dict(entry.split("=", 1) for entry in entries if entry) == environment
    python = (1 << signal.SIGPIPE - 1) | (1 << signal.SIGXFSZ - 1)  # the program is Python, which ignores these
    assert (int(str(facts["ignored"])) & ~python & ~LIBC, facts["blocked"]) == (0, 0)
    assert facts["leads_session"] is True
    assert facts["cwd"] == str(tmp_path)


def test_signal_dispositions_are_default_for_programs_that_are_not_python() -> None:
    """A pipeline must die of SIGPIPE, which every Python process ignores."""
    with GuardedChild(["cat", "/proc/self/status"], deadline=now() + LONG, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        status = child.stdout.read().decode()
        assert child.wait(PATIENCE) == 0
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Sig"))
    for field in ("SigIgn", "SigBlk", "SigCgt"):
        assert int(masks[field], 16) & ~LIBC == 0, f"{field} {masks[field]}"


def test_the_argument_list_arrives_unchanged_and_carries_nothing_of_ours() -> None:
    """Also bytes that are no text, and empty arguments."""
    command = ["cat", "/proc/self/cmdline", "/dev/null", "", "\udcff ä"]
    quiet = subprocess.DEVNULL
    with GuardedChild(command, deadline=now() + LONG, stdout=subprocess.PIPE, stderr=quiet) as child:
        assert child.stdout is not None
        assert child.stdout.read() == b"\0".join(map(os.fsencode, command)) + b"\0"


def test_the_guardians_own_command_line_and_environment_carry_only_the_command() -> None:
    """No deadline and no descriptor lists: they go through the socket."""
    with GuardedChild(["sleep", "600"], deadline=now() + LONG, env={"PATH": os.environ["PATH"]}) as child:
        guardian = psutil.Process(guardian_of(child))
        assert guardian.cmdline()[1:4] == ["-I", "-S", _guard.__file__]
        assert guardian.cmdline()[4].isdigit()
        assert guardian.cmdline()[5:] == ["sleep", "600"]
        assert set(guardian.environ()) == {"PATH"}


def test_input_and_output_go_through_and_close_when_the_command_closes_them() -> None:
    """The guardian keeps no copy that would hide an end of file."""
    script = "read line; echo got $line; exec >&- 2>&-; exec sleep 600"
    with GuardedChild(
        ["sh", "-c", script],
        deadline=now() + LONG, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"it\n")
        child.stdin.flush()
        assert child.stdout.read() == b"got it\n"
        assert child.poll() is None


def test_a_pipe_that_is_passed_closes_when_the_command_closes_it() -> None:
    """The same for further descriptors."""
    read_end, write_end = os.pipe()
    with GuardedChild(
        [sys.executable, "-c", f"import os, signal; os.close({write_end}); signal.pause()"],
        deadline=now() + LONG, pass_fds=[write_end],
    ) as child:  # fmt: skip
        os.close(write_end)
        assert os.read(read_end, 1) == b""
        assert child.poll() is None
    os.close(read_end)


def test_a_closed_standard_input_is_no_trap_for_our_descriptors(tmp_path: Path) -> None:
    """Daemons close 0, 1 and 2, and the next descriptors get these numbers."""
    script = (
        "import os, sys, subprocess; from coordinate.process import GuardedChild, now\n"
        "os.closerange(0, 3)\n"
        "child = GuardedChild(['sh', '-c', 'read x; exit 5'], deadline=now() + 60, stdin=subprocess.PIPE)\n"
        "child.stdin.close(); code = child.wait(); child.close(); os._exit(code)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == 5


# the rest


def test_a_lock_is_held_by_the_guardian_until_the_child_is_dead(tmp_path: Path) -> None:
    """hold_fds alone are only kept: closing ours does not free the lock, the end of the child does."""
    path = tmp_path / "lock"
    ours, other = os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDWR)
    fcntl.flock(ours, fcntl.LOCK_EX)
    with GuardedChild(["sleep", "600"], deadline=now() + LONG, hold_fds=[ours]) as child:
        os.close(ours)
        assert not try_lock(other)
        child.kill()
        assert try_lock(other)
    os.close(other)


def test_a_kill_does_not_free_a_lock_that_is_still_ours(tmp_path: Path) -> None:
    """Before the deadline the supervisor is the master of its lock."""
    path = tmp_path / "lock"
    ours, other = os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDWR)
    fcntl.flock(ours, fcntl.LOCK_EX)
    with GuardedChild(["sleep", "600"], deadline=now() + LONG, hold_fds=[ours], unlock_fds=[ours]) as child:
        child.kill()
    assert not try_lock(other)
    os.close(ours)
    os.close(other)


def test_twenty_runs_leave_no_descriptor_and_no_zombie() -> None:
    """Descriptors are counted; the fixture looks for zombies."""
    with guard("true") as child:
        child.wait(PATIENCE)
    before = open_descriptors()
    for number in range(20):
        with GuardedChild(["true"], deadline=now() + LONG, stdout=subprocess.PIPE) as child:
            if number % 2:
                child.wait(PATIENCE)
    with pytest.raises(FileNotFoundError):
        GuardedChild(["true"], deadline=now() + LONG, cwd="/nonexistent")
    assert open_descriptors() == before


def test_our_end_is_not_inherited_by_other_programs() -> None:
    """Every descriptor of ours is close-on-exec."""
    with guard("sleep", "600") as child:
        assert not os.get_inheritable(child.fileno())


def test_a_deadline_that_has_passed_starts_nothing(tmp_path: Path) -> None:
    """The command is never executed, and nothing is left."""
    with pytest.raises(TimeoutError):
        GuardedChild(["touch", str(tmp_path / "ran")], deadline=now() - 1)
    assert not (tmp_path / "ran").exists()


def test_a_guardian_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that ends at once is not mistaken for a command that ran."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ChildProcessError):
        guard("true")


def test_wrong_arguments_are_refused_before_anything_starts() -> None:
    """Each mistake has its own message."""
    soon = now() + 1
    with pytest.raises(TypeError, match="no shell"):
        GuardedChild("ls -l", deadline=soon)
    for words, argv, options in (
        ("empty", [], {}),
        ("finite", ["true"], {"deadline": float("nan")}),
        ("finite", ["true"], {"deadline": float("inf")}),
        ("0, 1, 2", ["true"], {"pass_fds": [1]}),
        ("hidden", ["true"], {"pass_fds": [7], "hold_fds": [7]}),
        ("among", ["true"], {"unlock_fds": [7]}),
    ):
        with pytest.raises(ValueError, match=words):
            GuardedChild(argv, **{"deadline": soon, **options})
    with guard("sleep", "600") as child:
        with pytest.raises(ValueError, match="grace"):
            child.stop(-1)
        with pytest.raises(ValueError, match="finite"):
            child.extend(float("nan"))


def test_in_a_forked_copy_the_child_cannot_be_touched() -> None:
    """Closing there frees descriptors only, everything else is refused."""
    with guard("sleep", "600") as child:
        copy = os.fork()
        if copy == 0:
            refused = 0
            for act in (child.poll, child.kill, lambda: child.extend(now() + 1), lambda: child.stop(0)):
                try:
                    act()
                except ChildProcessError:
                    refused += 1
            child.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 4
        assert child.poll() is None
        assert alive(child.pid)


def test_one_thread_may_extend_while_others_wait() -> None:
    """The keeper's thread and the waiting ones do not disturb each other."""
    codes: list[int | None] = []
    with guard("sleep", "600") as child:
        waiters = [threading.Thread(target=lambda: codes.append(child.wait(PATIENCE))) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        for _ in range(200):
            assert child.extend(now() + LONG)
            time.sleep(0)
        child.signal(signal.SIGTERM)
        for waiter in waiters:
            waiter.join()
    assert codes == [-signal.SIGTERM] * 3


def test_messages_that_nobody_knows_are_ignored() -> None:
    """A later version may say more; nonsense does not end a guardian."""
    with guard("sleep", "600") as child:
        nonsense = "hello/deadline/deadline soon/deadline nan/deadline inf/signal -1 2 3/signal x/signal 9999"
        for line in (*nonsense.split("/"), "stop", "stop soon", "\x00\xff", " "):
            assert child._send(line)
        assert child.wait(0.1) is None
        child.signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == -signal.SIGTERM


def test_without_pidfds_a_process_is_killed_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels and sandboxes have none; the start time is compared all the same."""

    def refuse(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "no pidfds here")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["/bin/sleep", "600"]) as victim:
        found = _guard.read_process(victim.pid)
        assert found is not None
        found.start += 1  # as if the id had been given to a later process
        _guard.end_process(found)
        with pytest.raises(subprocess.TimeoutExpired):
            victim.wait(0.1)
        found.start -= 1
        _guard.end_process(found)
        assert victim.wait(PATIENCE) == -signal.SIGKILL
        _guard.end_process(found)


def test_without_pidfds_a_guardian_sees_the_supervisors_death_all_the_same(
    folder: Path, tmp_path: Path, supervisors: list[subprocess.Popen[bytes]]
) -> None:
    """It asks who its parent is, also when a forked copy keeps the socket open."""
    copy_file, old_kernel = tmp_path / "copy", tmp_path / "old_kernel.py"
    old_kernel.write_text(
        "import os, runpy\n"
        "def refuse(pid): raise OSError(38, 'no pidfds here')\n"
        "os.pidfd_open = refuse\n"
        f"runpy.run_path({_guard.__file__!r}, run_name='__main__')\n"
    )
    supervisors.append(start_supervisor(folder, lifetime=LONG, fork=str(copy_file), guardian=str(old_kernel)))
    pids = pids_in(folder, FAMILY)
    assert eventually(lambda: copy_file.exists() and copy_file.read_text())
    (folder / copy_file.read_text()).touch()  # so that it is killed at the end
    supervisors[0].kill()
    assert eventually(lambda: not any_alive(pids))


def test_something_that_cannot_be_killed_is_not_reported_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then close() fails and may be repeated, for the lease must not be given back."""
    child = guard("sleep", "600")
    os.kill(guardian_of(child), signal.SIGSTOP)
    monkeypatch.setattr(process_module, "_end_all", lambda _find, _limit: False)
    assert child.kill(0.05) is None
    with pytest.raises(TimeoutError, match="still alive"):
        child.close()
    monkeypatch.undo()
    child.close()
    assert child.poll() == -signal.SIGKILL
