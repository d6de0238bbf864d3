"""Several hosts on one volume: admitted after a proof, else refused; and a volume that lies about its locks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, Unsupported
from coordinate.testing import eventually
from coordinate.types import (
    Capability,
    Claim,
    Gone,
    Granted,
    Held,
    MarkerRecord,
    MarkerState,
    Quarantined,
    Renewed,
    Unknown,
)
from coordinate_filelock import mounts
from coordinate_filelock.backend import FileBackend
from coordinate_filelock.mounts import Mount
from coordinate_filelock.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.types import AcquireAnswer, Grant

    Hosts = Callable[..., "Host"]

TTL = 30.0


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        """Return the time."""
        return self.time

    def wall(self) -> float:
        """Return the time."""
        return self.time


class Host:
    """A process of a host, as far as the volume can tell."""

    def __init__(self, path: Path, boot: str, kind: str, clock: Clock) -> None:
        def here(fd: int) -> mounts.Member:
            real = mounts.of(fd)
            return mounts.member(boot, f"host-{boot}", Mount(kind or real.kind, real.device, "server:/export", ""))

        self.clock = clock
        self.backend = FileBackend(Volume(str(path), "test"), "test", clock, here)
        self.grant: Grant | None = None

    def acquire(self) -> AcquireAnswer:
        """Ask once."""
        answer = self.backend.acquire("x", mint(), TTL)
        if isinstance(answer, Granted):
            self.grant = answer.grant
        return answer

    def renew(self) -> object:
        """Renew once."""
        assert self.grant is not None
        return self.backend.renew([self.grant])[0]

    def release(self) -> bool:
        """Give back."""
        assert self.grant is not None
        return self.backend.release(self.grant)


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def host(folder: Path, clock: Clock) -> Callable[..., Host]:
    """Start a process of a host."""
    return lambda boot, kind="nfs4", path=folder: Host(path, boot, kind, clock)


def meet(first: Host, second: Host, clock: Clock, rounds: int = 60) -> AcquireAnswer:
    """Let the second one ask while the first one renews, until the second one is admitted."""
    answer: AcquireAnswer = Quarantined(0)
    for _ in range(rounds):
        clock.time += 1
        first.renew()
        answer = second.acquire()
        if not isinstance(answer, Quarantined):
            break
    return answer


def test_containers_of_one_kernel_are_one_host(host: Hosts) -> None:
    """Whatever they are called."""
    first, second = host("a"), host("a")
    assert isinstance(first.acquire(), Granted)
    assert isinstance(second.acquire(), Held)
    assert first.release()
    assert isinstance(second.acquire(), Granted)


def test_two_hosts_whose_locks_exclude_prove_it_and_share_the_leases(host: Hosts, clock: Clock, folder: Path) -> None:
    """The proof is durable: a third process of a known host needs no rendezvous. Then the capability is declared."""
    first, second = host("a"), host("b")
    assert isinstance(first.acquire(), Granted)
    assert Capability.CROSS_HOST not in first.backend.capabilities
    assert isinstance(second.acquire(), Quarantined)
    assert isinstance(meet(first, second, clock), Held)
    for one in (first, second):
        assert Capability.CROSS_HOST in one.backend.capabilities
        assert "exclusion was proved" in one.backend.describe()["hosts"]
    (proof,) = (folder / "test/hosts").glob("proof.*")
    assert all(f'"boot_id":"{boot}"' in proof.read_text() for boot in "ab")
    assert first.renew() == Renewed(TTL)
    assert first.release()
    assert isinstance(host("b").acquire(), Granted)
    assert not [*(folder / "test/hosts").glob("probe*"), *(folder / "test/hosts").glob("ask*")]


def test_a_third_host_needs_a_proof_with_each_of_the_others(host: Hosts, clock: Clock, folder: Path) -> None:
    """Pairs, not a chain."""
    first, second, third = host("a"), host("b"), host("c")
    first.acquire()
    meet(first, second, clock)
    answer: AcquireAnswer = Quarantined(0)
    for _ in range(100):
        clock.time += 1
        first.renew()
        second.acquire()
        answer = third.acquire()
        if not isinstance(answer, Quarantined):
            break
    assert isinstance(answer, Held)
    assert len([*(folder / "test/hosts").glob("proof.*")]) == 3


def test_a_host_that_takes_no_part_is_not_joined(host: Hosts, clock: Clock) -> None:
    """It lives (it beats) and never answers: refused, with its name and the way out."""
    first, second = host("a"), host("b")
    first.acquire()
    first.backend._hosts._rendezvous.answer = lambda *_: None
    with pytest.raises(Unsupported, match=r"did not take part.*may grant: host-a.*COORDINATE_URL"):
        meet(first, second, clock, 200)
    assert first.renew() == Renewed(TTL)


def test_a_silent_host_is_replaced_after_its_leases_are_over_and_finds_out(host: Hosts, clock: Clock) -> None:
    """Silence for the longest ttl, then a seat, then the same wait again; what comes back is not a holder."""
    first, second = host("a"), host("b")
    first.acquire()
    first.release()
    began = clock.time
    while isinstance(answer := second.acquire(), Quarantined):
        clock.time += answer.retry_after
        assert clock.time < began + 200
    assert isinstance(answer, Granted)
    assert 2 * (TTL + 5) <= clock.time - began <= 2 * (TTL + 5) + 5
    assert first.renew() == Gone()
    assert isinstance(first.acquire(), Quarantined)


def test_a_host_that_was_deposed_while_it_was_paused_stops_before_the_next_one_begins(
    host: Hosts, clock: Clock
) -> None:
    """Its next renewal says so, also while the newcomer still waits."""
    first, second = host("a"), host("b")
    first.acquire()
    second.acquire()
    clock.time += TTL + 5.1
    assert isinstance(second.acquire(), Quarantined)
    assert first.renew() == Gone()
    clock.time += TTL
    assert isinstance(second.acquire(), Quarantined)
    clock.time += 5.1
    assert not isinstance(second.acquire(), Quarantined)


def test_another_process_of_a_newcomer_waits_as_long(host: Hosts, clock: Clock) -> None:
    """Whoever created the seat may be dead: the time is on the volume."""
    host("a").acquire()
    second = host("b")
    second.acquire()
    clock.time += TTL + 5.1
    assert isinstance(second.acquire(), Quarantined)
    clock.time += 20
    answer = host("b").acquire()
    assert isinstance(answer, Quarantined)
    assert answer.retry_after == pytest.approx(15)


def test_another_boot_on_a_local_file_system_is_a_reboot(host: Hosts) -> None:
    """Nobody else can have it mounted: no wait."""
    first = host("a", "ext4")
    first.acquire()
    first.release()
    assert isinstance(host("b", "xfs").acquire(), Granted)


def test_a_folder_that_is_local_to_its_server_is_refused_over_the_network(host: Hosts, clock: Clock) -> None:
    """The server's own processes never look who else is there."""
    host("a", "ext4").acquire()
    clock.time += 1000
    with pytest.raises(Unsupported, match=r"without a network"):
        host("b").acquire()


def test_markers_are_for_every_host(host: Hosts) -> None:
    """They need no lock."""
    host("a").acquire()
    second = host("b")
    second.backend.claim("site", Claim(5, mint()))
    second.backend.put_marker("site", MarkerRecord("s", "r", MarkerState.DONE, 5), 5)
    assert host("a").backend.markers("site").records


@pytest.mark.parametrize("content", [b"", b"{", b'{"number":1}'])
def test_a_damaged_seat_lets_nobody_in(host: Hosts, folder: Path, content: bytes) -> None:
    """Whoever sat there may go on."""
    first = host("a")
    first.acquire()
    (folder / "test/hosts/seat.00000000000000000001").write_bytes(content)
    assert isinstance(first.renew(), Unknown)
    from coordinate.errors import CorruptRecord

    with pytest.raises(CorruptRecord):
        host("b").acquire()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[list[Path]]:
    """Return two FUSE mounts of one folder: names cached for 3 s, locks not shared."""
    (tmp_path / "real").mkdir()
    points, servers = [tmp_path / "m1", tmp_path / "m2"], []
    program = Path(__file__).with_name("fuse_mount.py")
    for point in points:
        point.mkdir()
        servers.append(subprocess.Popen([sys.executable, str(program), str(tmp_path / "real"), str(point)]))
    for point in points:
        eventually(lambda point=point: os.path.ismount(point), within=30, what="the mount")
    yield points
    (tmp_path / "real.control").unlink(missing_ok=True)
    for point, server in zip(points, servers, strict=True):
        subprocess.run(["/bin/umount", "-l", str(point)], check=False)
        server.terminate()
        server.wait()


def test_two_mounts_that_do_not_exclude_each_other_are_found_out(
    host: Hosts, clock: Clock, mounted: list[Path], tmp_path: Path
) -> None:
    """Both locks would be granted: the second host is refused, the first one goes on, and the outcome is kept."""
    first, second = (host(boot, "", point / "store") for boot, point in zip("ab", mounted, strict=True))
    assert isinstance(first.acquire(), Granted)
    assert "fuse" in first.backend.describe()["file system"]
    assert "one at a time" in first.backend.describe()["hosts"]
    with pytest.raises(Unsupported, match=r"'fuse'.*did not keep the other out.*may grant: host-a"):
        meet(first, second, clock, 90)
    assert first.renew() == Renewed(TTL)
    assert Capability.CROSS_HOST not in first.backend.capabilities
    (proof,) = (tmp_path / "real/store/test/hosts").glob("proof.*")
    assert '"good":false' in proof.read_text()
    again = host("b", "", mounted[1] / "store")
    with pytest.raises(Unsupported):
        meet(first, again, clock, 60)


def test_two_mounts_on_one_host_are_two(host: Hosts, mounted: list[Path]) -> None:
    """One kernel, one boot, and all the same their locks are not shared."""
    first, second = (host("a", "", point / "store") for point in mounted)
    assert isinstance(first.acquire(), Granted)
    assert isinstance(second.acquire(), Quarantined)


def test_a_marker_of_another_mount_is_seen_at_once_although_names_are_cached(host: Hosts, mounted: list[Path]) -> None:
    """A look-up that found nothing is remembered for 3 s there; a listing is not."""
    writer, reader = (host(boot, "", point / "store").backend for boot, point in zip("ab", mounted, strict=True))
    writer.claim("site", Claim(5, mint()))
    assert reader.markers("site").claim is not None
    began = time.monotonic()
    assert not (mounted[1] / "store/test/markers/site/probe").exists()
    (mounted[0] / "store/test/markers/site/probe").touch()
    assert not (mounted[1] / "store/test/markers/site/probe").exists()
    writer.put_marker("site", MarkerRecord("s", "r", MarkerState.DONE, 5), 5)
    assert [one.step for one in reader.markers("site").records] == ["s"]
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("word", ["EIO", "ESTALE", "ENOSPC"])
def test_errors_of_the_volume_are_unavailability_and_pass(
    host: Hosts, mounted: list[Path], tmp_path: Path, word: str
) -> None:
    """Never "somebody else holds it", never lost, never done; afterwards everything works as before."""
    one = host("a", "", mounted[0] / "store")
    one.acquire()
    one.backend.claim("site", Claim(5, mint()))
    control = tmp_path / "real.control"
    control.write_text(word)
    for call in (one.acquire, lambda: one.backend.claim("site", Claim(6, mint())), one.backend.ping):
        with pytest.raises(BackendUnavailable):
            call()
    assert isinstance(one.renew(), Unknown)
    control.unlink()
    eventually(lambda: not isinstance(one.renew(), Unknown), within=10, what="the volume")
    assert one.renew() == Renewed(TTL)
    assert one.backend.markers("site").claim.token == 5
    assert isinstance(one.acquire(), Held)


def test_skewed_times_of_files_decide_nothing(host: Hosts, mounted: list[Path], tmp_path: Path) -> None:
    """The server's clock is a day ahead, then a day behind."""
    one = host("a", "", mounted[0] / "store")
    for number, skew in enumerate((86400, -86400)):
        (tmp_path / "real.control").write_text(f"skew={skew}")
        assert isinstance(one.acquire(), Granted)
        one.backend.claim("site", Claim(5 + number, mint()))
        assert one.backend.markers("site").claim.token == 5 + number
        assert one.release()
