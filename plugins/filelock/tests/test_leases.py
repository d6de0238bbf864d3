"""Leases between real processes: death, guardians, forks, tokens, damage."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock, Timeout

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, CorruptRecord
from coordinate.testing import eventually
from coordinate.types import Gone, Grant, Granted, Held, LossReason, Renewed, Unknown
from coordinate_filelock import leases, tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coordinate_filelock.backend import FileBackend

    from .conftest import Worker

    Clients = Callable[[], FileBackend]
    Workers = Callable[[], Worker]


def token(backend: FileBackend, name: str = "x", floor: int = 0) -> int:
    """Acquire, return the token or 0."""
    answer = backend.acquire(name, mint(), 30, floor=floor)
    return answer.grant.token if isinstance(answer, Granted) else 0


def grant(backend: FileBackend, name: str = "x") -> Grant:
    """Acquire and insist on it."""
    answer = backend.acquire(name, mint(), 30)
    assert isinstance(answer, Granted)
    return answer.grant


def test_a_killed_holder_is_replaced_at_once_by_a_greater_token(backend: FileBackend, worker: Workers) -> None:
    """The kernel gives the lock back with the process; nobody waits for a ttl."""
    holder = worker()
    first = holder.ask("acquire", "x")
    answer = backend.acquire("x", mint(), 30)
    assert isinstance(answer, Held)
    assert answer.record is not None
    assert answer.record.owner.pid == holder.process.pid
    holder.kill()
    found: list[int] = []
    eventually(lambda: bool(found.append(token(backend)) or found[-1]), within=60, what="the takeover")
    assert found[-1] > first


def test_a_dead_holders_record_is_not_shown(backend: FileBackend, worker: Workers) -> None:
    """A record counts only while its writer has it locked."""
    holder = worker()
    holder.ask("acquire", "x")
    assert [record.name for record in backend.leases()] == ["x"]
    holder.kill()
    holder.process.wait()
    assert backend.holder("x") is None
    assert backend.leases() == []


def test_a_guardians_duplicates_keep_the_lease_of_a_dead_holder(backend: FileBackend, worker: Workers) -> None:
    """And unlocking the duplicates ends it, as does closing them."""
    for end in (lambda fd: fcntl.flock(fd, fcntl.LOCK_UN), os.close):
        holder = worker()
        assert holder.ask("acquire", "x")
        fds = holder.descriptors("x")
        holder.kill()
        holder.process.wait()
        assert isinstance(backend.acquire("x", mint(), 30), Held)
        assert backend.holder("x") is not None
        for fd in fds:
            end(fd)
        assert backend.holder("x") is None
        assert backend.release(grant(backend))


def test_a_release_does_not_depend_on_duplicates(backend: FileBackend, worker: Workers) -> None:
    """The lock belongs to the open file: released is released, whoever has a copy."""
    holder = worker()
    holder.ask("acquire", "x")
    fds = holder.descriptors("x")
    assert holder.ask("release", "x") is True
    assert token(backend)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("unlocked", [1, 2])
def test_a_holder_learns_that_its_guardian_unlocked(worker: Workers, unlocked: int) -> None:
    """It hung beyond its deadline; nobody took the lease yet, and it does not get it back by renewing."""
    holder = worker()
    holder.ask("acquire", "x")
    fds = holder.descriptors("x")
    assert holder.ask("renew", "x") == "Renewed"
    for fd in fds[:unlocked]:
        fcntl.flock(fd, fcntl.LOCK_UN)
    assert holder.ask("renew", "x") == "Gone EXPIRED"
    assert holder.ask("renew", "x") == "Gone EXPIRED"
    assert holder.ask("release", "x") is False
    for fd in fds:
        os.close(fd)


def test_a_holder_learns_that_another_was_granted_after_its_guardian_unlocked(
    backend: FileBackend, worker: Workers
) -> None:
    """Also when that one is gone again; and its late release disturbs nobody."""
    for let_go_first in (False, True):
        holder = worker()
        assert holder.ask("acquire", "x")
        for fd in holder.descriptors("x"):
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)
        other = grant(backend)
        if let_go_first:
            backend.release(other)
        assert holder.ask("renew", "x") == "Gone TAKEN"
        assert holder.ask("release", "x") is False
        assert isinstance(backend.renew([other])[0], Gone if let_go_first else Renewed)
        backend.release(other)


def test_the_lock_is_the_one_that_filelock_takes(backend: FileBackend, folder: Path) -> None:
    """Programs that use the package directly take part, in both directions."""
    held = grant(backend)
    theirs = FileLock(folder / "test/leases/x.lock", timeout=0, preserve_lock_file=True)
    with pytest.raises(Timeout):
        theirs.acquire()
    backend.release(held)
    with theirs:
        assert backend.acquire("x", mint(), 30) == Held(None, 30)


def test_eight_processes_never_hold_it_together_and_tokens_never_repeat(worker: Workers, tmp_path: Path) -> None:
    """An exclusively created file is the referee; each process's own tokens grow, all are different."""
    workers = [worker() for _ in range(8)]
    for one in workers:
        one.tell("rounds", "x", 40, tmp_path / "referee")
    tokens = [one.answer() for one in workers]
    assert all(mine == sorted(mine) for mine in tokens)
    assert len({number for mine in tokens for number in mine}) == 8 * 40


@pytest.mark.parametrize("rebooted", [False, True])
def test_a_crash_between_reservation_and_grant_repeats_nothing(backend: FileBackend, *, rebooted: bool) -> None:
    """A child dies after the counter and before its record; after a reboot records prove nothing about the block."""
    first = grant(backend)
    backend.release(first)
    child = os.fork()
    if child == 0:
        leases._write_record = lambda *_: os._exit(7)
        backend.acquire("x", mint(), 30)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    if rebooted:
        backend._hosts.kernel = "the next boot"
    later = grant(backend)
    assert later.token > (64 if rebooted else first.token)


def test_a_lost_record_skips_the_rest_of_the_block(worker: Workers, folder: Path) -> None:
    """Nobody knows then how far it was used."""
    for content in (None, b"{}"):
        holder = worker()
        last = holder.ask("acquire", "x")
        holder.ask("release", "x")
        record = folder / "test/leases/x.json"
        record.unlink()
        if content is not None:
            record.write_bytes(content)
        successor = worker()
        reserved = successor.ask("acquire", "x")
        assert reserved > last
        assert f'"reserved":{reserved + tokens.BLOCK - 1}' in (folder / "test/leases/x.token").read_text()
        successor.ask("release", "x")


@pytest.mark.parametrize(("call", "times"), [("open", 10), ("write", 4), ("fsync", 3), ("rename", 4), ("unlink", 3)])
def test_a_kill_at_any_call_to_the_system_repeats_no_token(
    worker: Workers, folder: Path, call: str, times: int
) -> None:
    """At each of the first calls of that kind in turn; the last one in a grant that reserves a new block."""
    first = worker()
    seen = {int(first.ask("acquire", "x"))}
    first.ask("release", "x")
    (folder / "test/leases/x.json").unlink()
    for number in range(1, times + 1):
        victim = worker()
        victim.ask("die", call, number)
        victim.tell("acquire_often", "x", folder.parent / "told")
        code = victim.process.wait(30)
        told = [int(text) for text in (folder.parent / "told").read_text().split()]
        (folder.parent / "told").unlink()
        assert code == -9
        assert not seen & set(told)
        assert len(told) == len(set(told))
        seen |= set(told)
    last = int(worker().ask("acquire", "x"))
    assert last > max(seen)


def test_a_failed_grant_leaves_the_lock_free(
    backend: FileBackend, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record cannot be written: unavailable, and the next one gets it with a greater token."""
    real = leases._write_record

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases, "_write_record", full)
    with pytest.raises(BackendUnavailable, match=r"disk is full"):
        backend.acquire("x", mint(), 30)
    monkeypatch.setattr(leases, "_write_record", real)
    assert token(client()) > 1


def test_a_token_is_on_the_disk_before_it_is_granted(
    backend: FileBackend, syscalls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, name, folder, once per block."""
    monkeypatch.setattr(tokens, "BLOCK", 64)
    first = grant(backend)
    assert syscalls[-4:] == ["fsync file", "rename", "fsync folder", "rename"]
    backend.release(first)
    syscalls.clear()
    for _ in range(63):
        backend.release(grant(backend))
    assert set(syscalls) == {"rename"}
    grant(backend)
    assert "fsync folder" in syscalls


def test_tokens_grow_when_two_processes_take_turns(backend: FileBackend, worker: Workers) -> None:
    """A block that somebody else has left behind is not continued."""
    other = worker()
    tokens = []
    for _ in range(3):
        mine = grant(backend)
        backend.release(mine)
        tokens += [mine.token, other.ask("acquire", "x")]
        other.ask("release", "x")
    assert tokens == sorted(set(tokens))


def test_a_forked_child_neither_keeps_the_lease_nor_repeats_tokens(folder: Path) -> None:
    """Its copies of the descriptors are closed; its parent's death ends the lease."""
    program = """
import os, sys
from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.url import parse
from coordinate_filelock.backend import FileBackend
backend = FileBackend.open(parse(sys.argv[1]), StoreSettings(namespace="test"))
first = backend.acquire("x", mint(), 30).grant
if os.fork() == 0:
    assert backend.descriptors(first) == ()
    assert not backend.release(first)
    assert type(backend.acquire("x", mint(), 30)).__name__ == "Held"
    print("child looked", flush=True)
    sys.stdin.read()
    print(backend.acquire("x", mint(), 30).grant.token, flush=True)
else:
    import signal; signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, f"file://{folder}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "child looked\n"
        process.kill()
        process.wait()
        process.stdin.close()
        assert int(process.stdout.readline()) > 1


@pytest.mark.parametrize("content", [b"", b"17", b'{"name":"x"}', b"\xff" * 10, b"{" * 70_000])
def test_a_damaged_counter_grants_nothing_and_says_the_way_out(
    backend: FileBackend, folder: Path, content: bytes
) -> None:
    """Never from zero again."""
    backend.release(grant(backend))
    counter = folder / "test/leases/x.token"
    counter.write_bytes(content)
    with pytest.raises(CorruptRecord, match=r"Way out"):
        backend.acquire("x", mint(), 30)
    counter.write_text('{"name":"x","reserved":500}')
    assert token(backend) > 500


def test_a_counter_restored_from_an_old_copy_is_overruled_by_who_knows_better(
    backend: FileBackend, worker: Workers, folder: Path
) -> None:
    """This process goes on above its own tokens, and says so on the disk before the next grant."""
    counter = folder / "test/leases/x.token"
    backend.release(grant(backend))
    old = counter.read_text()
    for _ in range(70):
        last = grant(backend)
        backend.release(last)
    counter.write_text(old)
    later = grant(backend)
    backend.release(later)
    assert later.token > last.token
    (folder / "test/leases/x.json").unlink()
    assert worker().ask("acquire", "x") > later.token


def test_a_removed_lock_file_is_noticed_at_the_next_renewal(backend: FileBackend, folder: Path) -> None:
    """By hand anything can be broken; the holder does not go on believing."""
    held = grant(backend)
    (folder / "test/leases/x.lock").unlink()
    assert backend.renew([held]) == [Gone(LossReason.TAKEN)]


def test_a_broken_lease_is_held_until_its_holder_lets_go(backend: FileBackend, worker: Workers) -> None:
    """The lock cannot be taken from a live process; its next renewal tells it to stop."""
    holder = worker()
    holder.ask("acquire", "x")
    raised = backend.break_lease("x")
    assert isinstance(backend.acquire("x", mint(), 30), Held)
    assert holder.ask("renew", "x") == "Gone BROKEN"
    assert holder.ask("release", "x") is False
    assert token(backend) > raised


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "hard link", "device"])
def test_what_is_no_lock_file_is_refused(backend: FileBackend, folder: Path, tmp_path: Path, kind: str) -> None:
    """Nothing outside is opened or changed, nothing blocks."""
    grant(backend, "other")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    plant(folder / "test/leases/x.lock", kind, secret)
    with pytest.raises(BackendUnavailable, match=r"remove it|Is a directory"):
        backend.acquire("x", mint(), 30)
    assert secret.read_text() == "secret"
    assert token(backend, "y")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder", "empty", "sparse"])
def test_what_is_no_record_is_nobody(backend: FileBackend, folder: Path, tmp_path: Path, kind: str) -> None:
    """It is left out at once, and replaced by the next holder where that can be."""
    grant(backend, "other")
    plant(folder / "test/leases/x.json", kind, tmp_path)
    assert backend.holder("x") is None
    assert [record.name for record in backend.leases()] == ["other"]
    if kind != "folder":
        assert token(backend)


def plant(path: Path, kind: str, target: Path) -> None:
    """Put something odd in the place of a file."""
    match kind:
        case "symlink":
            path.symlink_to(target)
        case "hard link":
            path.hardlink_to(target)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "empty":
            path.touch()
        case "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 30)


def test_a_renewal_that_cannot_look_is_unknown_and_a_release_lets_go(
    backend: FileBackend, client: Clients, folder: Path
) -> None:
    """A vanished volume: not lost, not renewed; giving back works all the same."""
    held = grant(backend)
    folder.rename(folder.with_name("away"))
    assert isinstance(backend.renew([held])[0], Unknown)
    with pytest.raises(BackendUnavailable, match=r"restart this process"):
        backend.holder("x")
    assert backend.release(held) is True
    folder.with_name("away").rename(folder)
    assert token(client())


def test_a_replaced_folder_is_not_an_empty_store(backend: FileBackend, folder: Path) -> None:
    """What was mounted there is gone: nobody is granted a lease on the mount point below."""
    grant(backend)
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    with pytest.raises(BackendUnavailable, match=r"not the one it was"):
        backend.acquire("y", mint(), 30)


def test_asking_who_holds_it_never_disturbs_those_who_try(backend: FileBackend, worker: Workers) -> None:
    """A probe on the lock itself would make a free lease look held."""
    asker = worker()
    asker.tell("follow", "nothing", 1)
    asker.answer()
    deadline = time.monotonic() + 0.5
    import threading

    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            backend.holder("x")
            backend.leases()

    thread = threading.Thread(target=probe)
    thread.start()
    while time.monotonic() < deadline:
        assert backend.release(grant(backend))
    stop.set()
    thread.join()


def test_files_are_private_to_user_and_group_whatever_the_umask(backend: FileBackend, folder: Path) -> None:
    """Modes are set, not masked."""
    before = os.umask(0o777)
    try:
        grant(backend)
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*")}
    assert modes == {
        "test": "0o770",
        "hosts": "0o770",
        "seat.00000000000000000001": "0o640",
        "leases": "0o770",
        "x.lock": "0o660",
        "x.json": "0o640",
        "x.token": "0o640",
    }
    assert oct(folder.stat().st_mode & 0o777) == "0o770"
