"""Markers: the race of claim and seal step by step, then by brute force; damage, pruning, durability."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from coordinate import _wire
from coordinate._identity import mint
from coordinate.errors import AlreadyDone, BackendUnavailable, ConfigError, StaleToken
from coordinate.types import Claim, MarkerRecord, MarkerState
from coordinate_filelock import markers
from coordinate_filelock.records import ClaimFile, Listing, SealFile, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coordinate_filelock.backend import FileBackend
    from coordinate_filelock.volume import Folder

    from .conftest import Worker

    Clients = Callable[[], FileBackend]
    Workers = Callable[[], Worker]
    Inside = Callable[[], Folder]


def record(
    step: str = "migrate", token: int = 5, state: MarkerState = MarkerState.DONE, **more: object
) -> MarkerRecord:
    """Return a record of revision r."""
    return MarkerRecord(step, "r", state, token, **more)


def seen(backend: FileBackend) -> dict[str, int]:
    """Return the steps that are done, and under which token."""
    records = backend.markers("site").records
    return {one.step: one.token for one in records if one.state is MarkerState.DONE}


@pytest.fixture
def inside(backend: FileBackend) -> Iterator[Inside]:
    """Open the scope's folder, as the internal steps get it."""
    opened = []

    def open_folder() -> Folder:
        opened.append(backend._markers.folder("site", create=True))
        return opened[-1]

    yield open_folder
    for folder in opened:
        os.close(folder.fd)


@pytest.fixture
def site(folder: Path) -> Path:
    """Return the scope's folder."""
    return folder / "test/markers/site"


def link_claim(folder: Folder, token: int, claim: Claim | None = None) -> None:
    """Do the first half of a claim: what a claimer that died before its seal left."""
    mine = ClaimFile("site", token, claim or Claim(token, mint()))
    folder.publish(mine.file, _wire.encode(mine))


def test_a_write_that_comes_after_the_next_seal_never_counts(
    backend: FileBackend, client: Clients, inside: Inside
) -> None:
    """The old leader looked before the new claim and writes after its seal."""
    backend.claim("site", Claim(5, mint()))
    before = markers.read(inside(), "site")
    client().claim("site", Claim(6, mint()))
    with pytest.raises(StaleToken) as refused:
        markers.write(inside(), "site", record(), before)
    assert refused.value.floor == 6
    assert seen(backend) == {}
    client().claim("site", Claim(7, mint()))
    assert seen(backend) == {}


def test_a_write_that_comes_before_the_next_seal_counts_for_everybody(
    backend: FileBackend, client: Clients, inside: Inside
) -> None:
    """Though its writer is refused: it was there before the newer leader was accepted."""
    backend.claim("site", Claim(5, mint()))
    before = markers.read(inside(), "site")
    claim = Claim(6, mint())
    link_claim(inside(), 6, claim)
    with pytest.raises(StaleToken):
        markers.write(inside(), "site", record(), before)
    client().claim("site", claim)
    assert seen(backend) == seen(client()) == {"migrate": 5}
    with pytest.raises(AlreadyDone):
        client().put_marker("site", record(token=6), 6)


def test_what_a_reader_saw_done_stays_done(backend: FileBackend, inside: Inside) -> None:
    """A late write that a reader can see between claim and seal is sealed by that reader, or not seen."""
    backend.claim("site", Claim(5, mint()))
    before = markers.read(inside(), "site")
    link_claim(inside(), 6)
    with pytest.raises(StaleToken):
        markers.write(inside(), "site", record("early"), before)
    assert seen(backend) == {"early": 5}
    with pytest.raises(StaleToken):
        markers.write(inside(), "site", record("late"), before)
    assert seen(backend) == {"early": 5}
    backend.claim("site", Claim(8, mint()))
    assert seen(backend) == {"early": 5}


def test_a_claimer_that_died_before_its_seal_blocks_nobody(backend: FileBackend, inside: Inside, site: Path) -> None:
    """Readers see what counted, the deposed leader is refused, the next one goes on."""
    backend.claim("site", Claim(5, mint()))
    backend.put_marker("site", record(), 5)
    begun = record("build", state=MarkerState.IN_PROGRESS, attempts=3, failures=2)
    backend.put_marker("site", begun, 5)
    link_claim(inside(), 6)
    view = backend.markers("site")
    assert view.claim is not None
    assert view.claim.token == 6
    assert seen(backend) == {"migrate": 5}
    assert (site / f"seal.{6:020}").exists()
    with pytest.raises(StaleToken):
        backend.put_marker("site", record("late"), 5)
    backend.claim("site", Claim(7, mint()))
    assert backend.markers("site").find("build", "r") == begun


def test_a_claimer_that_was_overtaken_before_its_seal_is_refused(
    backend: FileBackend, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It linked its claim, then slept while a newer one came, sealed and pruned."""
    real = markers.read
    other = client()

    def slow(folder: Folder, scope: str, *, helping: bool = True) -> markers.State:
        monkeypatch.setattr(markers, "read", real)
        other.claim("site", Claim(9, mint()))
        return real(folder, scope, helping=helping)

    monkeypatch.setattr(markers, "read", slow)
    with pytest.raises(StaleToken) as refused:
        backend.claim("site", Claim(6, mint()))
    assert refused.value.floor == 9


def test_a_reader_is_not_fooled_by_a_claim_that_comes_while_it_lists(
    backend: FileBackend, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One listing is not one instant: a claim, its seal and then a late write may fall into it."""
    backend.claim("site", Claim(5, mint()))
    before = markers.read(inside(), "site")
    folder = inside()
    real = type(folder).names
    stale = real(folder)

    def torn(this: Folder) -> list[str]:
        monkeypatch.setattr(type(folder), "names", real)
        backend.claim("site", Claim(6, mint()))
        with pytest.raises(StaleToken):
            markers.write(this, "site", record("late"), before)
        return [*stale, *(name for name in real(this) if name.startswith("m."))]

    monkeypatch.setattr(type(folder), "names", torn)
    assert markers.read(folder, "site").records == {}


def test_the_same_token_of_another_owner_is_refused(backend: FileBackend, client: Clients, site: Path) -> None:
    """Also when the claim cannot be read any more: its name stands."""
    backend.claim("site", Claim(5, mint()))
    (site / f"claim.{5:020}").write_bytes(b"")
    with pytest.raises(StaleToken):
        client().claim("site", Claim(5, mint()))
    with pytest.raises(StaleToken):
        client().claim("site", Claim(4, mint()))
    client().claim("site", Claim(6, mint()))


def test_a_claim_that_is_pruned_while_it_is_compared_is_refused(
    backend: FileBackend, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner's claim of the same token was there a moment ago; two newer leaders removed it."""
    backend.claim("site", Claim(5, mint()))
    real = markers.read_file

    def late(*arguments: object) -> object:
        monkeypatch.setattr(markers, "read_file", real)
        for token in (6, 7):
            backend.claim("site", Claim(token, mint()))
        return real(*arguments)

    monkeypatch.setattr(markers, "read_file", late)
    with pytest.raises(StaleToken):
        client().claim("site", Claim(5, mint()))


def test_records_without_a_claim_survive_the_first_claim(backend: FileBackend) -> None:
    """Written by hand or by an earlier image, under no token."""
    backend.put_marker("site", record(token=0), 0)
    assert seen(backend) == {"migrate": 0}
    backend.claim("site", Claim(3, mint()))
    assert seen(backend) == {"migrate": 0}
    with pytest.raises(StaleToken):
        backend.put_marker("site", record("other", 0), 0)


@pytest.mark.parametrize("_", range(3))
def test_claimers_writers_and_readers_at_once_break_no_promise(backend: FileBackend, worker: Workers, _: int) -> None:
    """Four leaders with interleaved tokens, two followers: done once, kept once acknowledged, never unread."""
    followers = [worker() for _ in range(2)]
    leaders = [worker() for _ in range(4)]
    for one in followers:
        one.tell("follow", "site", 300)
    for number, one in enumerate(leaders):
        one.tell("lead", "site", number + 1, 60)
    acknowledged = [pair for one in leaders for pair in one.answer()]
    steps = [step for _, step in acknowledged]
    assert len(steps) == len(set(steps)) > 0
    final = seen(backend)
    assert {step: final.get(step) for _, step in acknowledged} == {step: token for token, step in acknowledged}
    assert [one.answer() for one in followers] == [[], []]


def test_a_leader_that_is_killed_loses_nothing_acknowledged(backend: FileBackend, worker: Workers) -> None:
    """Its successor seals what it wrote."""
    first = worker()
    acknowledged = first.ask("lead", "site", 1, 3)
    first.kill()
    backend.claim("site", Claim(99, mint()))
    assert {step: token for token, step in acknowledged} == seen(backend)


def damage(path: Path, kind: str) -> None:
    """Spoil a file in one of the ways that happen."""
    content = path.read_bytes()
    path.unlink()
    bodies = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "other scope": content.replace(b'"site"', b'"copy"'),
        "other version": content.replace(b'"v":1', b'"v":2'),
        "deep": b"[" * 60_000,
    }
    match kind:
        case "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 30)
        case "fifo":
            os.mkfifo(path)
        case "symlink":
            path.symlink_to("/dev/zero")
        case "link to the content":
            path.with_suffix(".away").write_bytes(content)
            path.symlink_to(path.with_suffix(".away"))
        case "folder":
            path.mkdir()
        case _:
            path.write_bytes(bodies[kind])


KINDS = [
    "empty",
    "truncated",
    "sparse",
    "fifo",
    "symlink",
    "link to the content",
    "folder",
    "other scope",
    "other version",
    "deep",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_record_is_never_done(backend: FileBackend, site: Path, kind: str) -> None:
    """The record before it stands; and the leader may write it again."""
    backend.claim("site", Claim(5, mint()))
    begun = record(state=MarkerState.IN_PROGRESS, attempts=1)
    backend.put_marker("site", begun, 5)
    backend.put_marker("site", record(), 5)
    (done,) = site.glob("m.*.000002")
    damage(done, kind)
    assert backend.markers("site").records == (begun,)
    backend.put_marker("site", record(), 5)
    assert seen(backend) == {"migrate": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_seal_is_replaced_by_the_generation_before(backend: FileBackend, site: Path, kind: str) -> None:
    """Nothing that was acknowledged is missing, and the leader goes on."""
    backend.claim("site", Claim(4, mint()))
    backend.put_marker("site", record("create", 4), 4)
    backend.claim("site", Claim(5, mint()))
    backend.put_marker("site", record("migrate", 5), 5)
    backend.claim("site", Claim(6, mint()))
    backend.put_marker("site", record("build", 6), 6)
    damage(site / f"seal.{6:020}", kind)
    assert seen(backend) == {"create": 4, "migrate": 5, "build": 6}
    backend.put_marker("site", record("ready", 6), 6)
    backend.claim("site", Claim(7, mint()))
    assert seen(backend) == {"create": 4, "migrate": 5, "build": 6, "ready": 6}


def test_foreign_files_are_left_alone(backend: FileBackend, site: Path) -> None:
    """Names that are not exactly ours mean nothing and stay."""
    backend.claim("site", Claim(5, mint()))
    names = ["claim.9", "claim.x", f"claim.{9:020}.bak", f"m.{'0' * 32}.{9:020}", "seal.", "README", ".ready_r"]
    for name in names:
        (site / name).write_text("{}")
    (site / f"m.{key_of('migrate', 'r')}.{5:020}.000007").write_text("{}")
    backend.put_marker("site", record(), 5)
    backend.claim("site", Claim(6, mint()))
    backend.claim("site", Claim(7, mint()))
    assert seen(backend) == {"migrate": 5}
    assert all((site / name).exists() for name in names)


def test_a_copied_record_does_not_count_under_another_name(backend: FileBackend, site: Path) -> None:
    """Content and name must agree."""
    backend.claim("site", Claim(5, mint()))
    backend.put_marker("site", record(), 5)
    (done,) = site.glob("m.*")
    done.rename(site / done.name.replace(key_of("migrate", "r"), key_of("build", "r")))
    assert seen(backend) == {}


def test_old_files_are_removed_but_no_record(backend: FileBackend, site: Path) -> None:
    """Two generations of files, however many leaders there were; every record is still known."""
    for token in range(1, 30):
        backend.claim("site", Claim(token, mint()))
        backend.put_marker("site", record(f"s{token}", token), token)
    assert len(list(site.iterdir())) <= 7
    assert seen(backend) == {f"s{token}": token for token in range(1, 30)}


def test_leftovers_of_a_crash_are_removed_in_the_end(backend: FileBackend, site: Path) -> None:
    """Old temporary files go, young ones may still be in use."""
    backend.claim("site", Claim(5, mint()))
    for name in ("tmp.old", "tmp.young"):
        (site / name).touch()
    os.utime(site / "tmp.old", (0, 0))
    backend.claim("site", Claim(6, mint()))
    assert not (site / "tmp.old").exists()
    assert (site / "tmp.young").exists()


def test_a_reset_that_a_seal_missed_still_hides_the_record(
    backend: FileBackend, client: Clients, inside: Inside, site: Path
) -> None:
    """The operator acts between the new leader's listing and its seal; and the reset goes when it is not needed."""
    backend.claim("site", Claim(5, mint()))
    backend.put_marker("site", record(), 5)
    link_claim(inside(), 6)
    stale = Listing(inside().names())
    records = markers.counting(inside(), "site", stale)
    # The operator's reset, as delete() writes it, before the seal that does not know of it.
    (done,) = site.glob("m.*")
    (site / done.name.replace("m.", "reset.")).touch()
    inside().publish(f"seal.{6:020}", msgspec.json.encode(SealFile("site", 6, list(records.values()))))
    assert seen(backend) == {}
    for token in range(7, 12):
        client().claim("site", Claim(token, mint()))
        assert seen(backend) == {}
    assert list(site.glob("reset.*")) == []


def test_a_reset_survives_a_damaged_seal(backend: FileBackend, site: Path) -> None:
    """What an operator removed does not come back with the previous generation."""
    backend.claim("site", Claim(5, mint()))
    backend.put_marker("site", record(), 5)
    backend.claim("site", Claim(6, mint()))
    backend.delete_marker("site", "migrate", "r")
    backend.claim("site", Claim(7, mint()))
    damage(site / f"seal.{7:020}", "empty")
    assert seen(backend) == {}


def test_a_record_is_on_the_disk_before_it_is_acknowledged(backend: FileBackend, syscalls: list[str]) -> None:
    """File, name, file, folder; the same for claim and seal. A repeated write may be what is left of a failed sync."""
    backend.claim("site", Claim(5, mint()))
    durable = ["fsync file", "link", "fsync file", "fsync folder"]
    assert [*durable, *durable, "fsync folder"] == [call for call in syscalls if call != "rename"][-9:]
    syscalls.clear()
    backend.put_marker("site", record(), 5)
    assert syscalls == durable
    backend.put_marker("site", record(), 5)
    assert syscalls == [*durable, "fsync folder"]


def test_a_full_disk_is_no_acknowledgement(backend: FileBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sync fails: nothing is promised, nothing is half there."""
    backend.claim("site", Claim(5, mint()))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(BackendUnavailable, match=r"cannot write a marker of 'site'.*disk is full"):
            backend.put_marker("site", record(), 5)
    assert seen(backend) == {}
    backend.put_marker("site", record(), 5)


def test_a_scope_of_many_records_can_be_claimed_anew(backend: FileBackend) -> None:
    """Together they are larger than any of them may be."""
    backend.claim("site", Claim(5, mint()))
    for number in range(30):
        backend.put_marker("site", record(f"s{number}", detail="x" * 4000), 5)
    backend.claim("site", Claim(6, mint()))
    assert len(backend.markers("site").records) == 30


def test_a_record_that_could_not_be_read_back_is_not_written(backend: FileBackend) -> None:
    """Too large is an error of the caller, not damage later."""
    backend.claim("site", Claim(5, mint()))
    with pytest.raises(ConfigError, match=r"too large"):
        backend.put_marker("site", record(detail="x" * 70_000), 5)
    with pytest.raises(ConfigError, match=r"at least 1"):
        backend.claim("site", Claim(0, mint()))


def test_scopes_of_any_name_are_listed(backend: FileBackend, folder: Path) -> None:
    """Long ones, and ones that differ in case only, have folders of their own, short enough for any disk."""
    names = sorted(["site", "Site", "a/b", "x" * 64 + "/" + "y" * 64 + "/" + "Z" * 64, "/".join("abcdefgh" * 12)])
    for name in names:
        backend.claim(name, Claim(5, mint()))
    backend.watch().close()
    assert backend.scopes() == names
    folders = [path.name for path in (folder / "test/markers").iterdir()]
    assert len({name.lower() for name in folders}) == len(names)
    assert max(map(len, folders)) <= 120


def test_a_scope_that_is_a_link_is_refused(backend: FileBackend, site: Path, tmp_path: Path) -> None:
    """Markers of another volume are not ours, however well formed."""
    backend.claim("site", Claim(5, mint()))
    site.rename(tmp_path / "elsewhere")
    site.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendUnavailable):
        backend.markers("site")
    with pytest.raises(BackendUnavailable):
        backend.claim("site", Claim(6, mint()))


def test_nothing_of_a_scope_is_there_before_its_first_claim(backend: FileBackend) -> None:
    """Reading creates and invents nothing."""
    view = backend.markers("site")
    assert view.claim is None
    assert view.records == ()
    assert backend.scopes() == []
