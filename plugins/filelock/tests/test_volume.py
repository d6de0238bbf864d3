"""The folder itself: full, read-only, missing, odd URLs; and what importing the plugin costs."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.testing.kit import record
from coordinate.types import Capability, Claim, Granted, Topic
from coordinate.url import parse
from coordinate_filelock.backend import FileBackend
from coordinate_filelock.volume import Folder, stem, unstem
from coordinate_filelock.watch import _HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def opened(url: str) -> FileBackend:
    """Open a client."""
    return FileBackend.open(parse(url), StoreSettings(namespace="test"))


class Mount:
    """A small disk of its own, in a mount namespace of its own, in which programs can run."""

    def __init__(self, point: Path) -> None:
        self.point = point
        point.mkdir()
        self.shell = subprocess.Popen(
            ["/usr/bin/unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run(f"mount -t tmpfs -o size=64k tmpfs {point}")

    def run(self, command: str) -> str:
        """Run a shell command there; return what it printed."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{command} 2>&1; echo ==$?\n")
        self.shell.stdin.flush()
        lines = []
        while not (line := self.shell.stdout.readline()).startswith("=="):
            assert line, lines
            lines.append(line)
        return "".join(lines)

    def python(self, code: str) -> str:
        """Run a program with a client ``b`` there."""
        program = self.point.with_suffix(".py")
        program.write_text(
            "import sys\nfrom coordinate._identity import mint\nfrom coordinate.backend import StoreSettings\n"
            "from coordinate.types import Claim, MarkerRecord, MarkerState\nfrom coordinate.url import parse\n"
            "from coordinate_filelock.backend import FileBackend\n"
            "b = FileBackend.open(parse(sys.argv[1]), StoreSettings(namespace='test'))\n"
            "done = MarkerRecord('migrate', 'r', MarkerState.DONE, 5)\n"
            f"try:\n    print({code})\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        )
        return self.run(f"{sys.executable} {program} file://{self.point}/store")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Mount]:
    """Return a small disk."""
    mount = Mount(tmp_path / "disk")
    yield mount
    mount.shell.communicate()


CLAIM = "b.claim('site', Claim(5, mint()))"
PUT = "b.put_marker('site', done, 5)"
SEEN = "[one.step for one in b.markers('site').records]"
ACQUIRE = "type(b.acquire('x', mint(), 30)).__name__"


def test_a_full_disk_is_unavailable_and_then_works_again(disk: Mount) -> None:
    """Creating a file succeeds there, writing to it does not."""
    assert disk.python(CLAIM) == "None\n"
    disk.run(f"dd if=/dev/zero of={disk.point}/ballast bs=1k")
    for attempt in (PUT, ACQUIRE, "b.ping()"):
        answer = disk.python(attempt)
        assert answer.startswith("BackendUnavailable")
        assert "the disk is full" in answer
    assert disk.python(SEEN) == "[]\n"
    disk.run(f"rm {disk.point}/ballast")
    assert disk.python(PUT) == "None\n"
    assert disk.python(SEEN) == "['migrate']\n"
    assert disk.python(ACQUIRE) == "Granted\n"


def test_a_volume_without_inodes_is_unavailable_and_then_works_again(disk: Mount) -> None:
    """There is space, and yet no file can be made."""
    assert disk.python(CLAIM) == "None\n"
    assert disk.python(PUT) == "None\n"
    disk.run(f"mount -o remount,nr_inodes=40 {disk.point}; i=0; while touch {disk.point}/b$i; do i=$((i+1)); done")
    for attempt in (PUT.replace("done", "done.__class__('two', 'r', done.state, 5)"), ACQUIRE, "b.ping()"):
        answer = disk.python(attempt)
        assert answer.startswith("BackendUnavailable")
        assert "the disk is full" in answer
    assert disk.python(SEEN) == "['migrate']\n"
    disk.run(f"rm {disk.point}/b*")
    assert disk.python(ACQUIRE) == "Granted\n"


def test_a_read_only_volume_can_be_read(disk: Mount) -> None:
    """Followers need no more, also when the last claimer died before its seal; writing says why it cannot be."""
    disk.python(CLAIM)
    disk.python(PUT)
    disk.run(f"cd {disk.point}/store/test/markers/site; cp claim.* claim.00000000000000000006; cd /")
    disk.run(f"mount -o remount,ro {disk.point}")
    assert disk.python(SEEN) == "['migrate']\n"
    assert disk.python("b.scopes()") == "['site']\n"
    for attempt in (PUT, ACQUIRE, "b.ping()", "b.break_lease('x')"):
        answer = disk.python(attempt)
        assert answer.startswith("BackendUnavailable")
        assert "mount it writable" in answer
    assert disk.python("b.watch().add(__import__('coordinate.types').types.Topic('markers', 'new'))") == "None\n"


def test_a_missing_volume_is_unavailable_and_nothing_is_created(tmp_path: Path) -> None:
    """Only the last folder of the path is ours to make."""
    backend = opened(f"file://{tmp_path}/unmounted/store")
    for call in (backend.ping, backend.scopes, backend.leases, backend.describe):
        with pytest.raises(BackendUnavailable, match=r"create the folder, or mount the volume"):
            call()
    with pytest.raises(BackendUnavailable):
        backend.acquire("x", mint(), 30)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_unavailable(tmp_path: Path) -> None:
    """The message names the path and what to do."""
    (tmp_path / "store").write_text("")
    with pytest.raises(BackendUnavailable, match=r"store: cannot write to it.*must name a folder"):
        opened(f"file://{tmp_path}/store").ping()


@pytest.mark.parametrize(
    "url", ["file://host/dir", "file:///dir?mode=600", "file://user@/dir", "file:///a%00b", "file://host"]
)
def test_a_url_that_can_never_work_is_an_error_of_configuration(url: str) -> None:
    """Nothing is tried."""
    with pytest.raises(ConfigError):
        opened(url)


def test_the_default_is_below_the_users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made with its parents: nobody mounts anything there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a/b"))
    backend = opened("file://")
    assert isinstance(backend.acquire("x", mint(), 30), Granted)
    assert (tmp_path / "a/b/coordinate/test/leases").is_dir()
    assert FileBackend.default_url.startswith("file:///")


def test_one_folder_by_two_paths_is_one_store(tmp_path: Path) -> None:
    """A link to the folder is the folder."""
    (tmp_path / "link").symlink_to(tmp_path / "store")
    one, two = opened(f"file://{tmp_path}/store"), opened(f"file://{tmp_path}/link/")
    assert one.store_id == two.store_id
    assert isinstance(one.acquire("x", mint(), 30), Granted)
    assert not isinstance(two.acquire("x", mint(), 30), Granted)


def test_what_is_not_promised_is_not_declared(tmp_path: Path) -> None:
    """No expiry, no other hosts."""
    assert opened(f"file://{tmp_path}").capabilities == {
        Capability.FLOOR,
        Capability.CROSS_PROCESS,
        Capability.DURABLE_MARKERS,
        Capability.WAKE,
    }
    assert opened(f"file://{tmp_path}").describe()["file system"] != "unknown"


@pytest.mark.parametrize(
    "name", ["a", "a/b", "A", "a" * 200, "/".join("ab" * 50), ".a", "a~b", "\u00e4", "con", "a%2fb"]
)
def test_any_name_is_a_short_file_name(name: str) -> None:
    """Bounded, never hidden, never a path, reversible or known to be hashed."""
    text = stem(name)
    assert len(text) <= 120
    assert not text.startswith(".")
    assert "/" not in text
    assert unstem(text) in {name, None}


def test_importing_the_plugin_is_cheap() -> None:
    """No client, no ctypes, no asyncio: those who name another store pay nothing for this one."""
    program = (
        "import sys, coordinate.backend; before = set(sys.modules); import coordinate_filelock; "
        "print(*sorted(set(sys.modules) - before)); import coordinate_filelock.backend; "
        "print(*({'ctypes', 'asyncio', 'sqlite3'} & set(sys.modules)))"
    )
    first, second = subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()
    assert "filelock" not in first.split()
    assert "coordinate_filelock.backend" not in first
    assert second == ""


@pytest.mark.parametrize("lacks", ["nothing", "nameless files", "links of them"])
def test_what_is_published_is_complete_and_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """Also where there are no files without names, or none that can be linked; nothing stays beside it."""
    open_real, link_real = os.open, os.link

    def open_here(path: str, flags: int, *args: int, **options: int) -> int:
        if lacks == "nameless files" and flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return open_real(path, flags, *args, **options)

    def link_here(source: str, *args: str, **options: int) -> None:
        if lacks == "links of them" and source.startswith("/proc/"):
            raise FileNotFoundError(2, "No such file or directory")
        link_real(source, *args, **options)

    monkeypatch.setattr(os, "open", open_here)
    monkeypatch.setattr(os, "link", link_here)
    with Folder(open_real(tmp_path, os.O_RDONLY)) as folder:
        folder.publish("news", b"whole")
        with pytest.raises(FileExistsError):
            folder.publish("news", b"again")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"news": b"whole"}
    assert (tmp_path / "news").stat().st_mode & 0o777 == 0o640


def test_a_nameless_file_is_synced_once_more_when_it_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file system logs of a file without links is nothing on btrfs."""
    calls: list[str] = []
    sync, link = os.fsync, os.link

    def synced(fd: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def linked(*args: str, **options: int) -> None:
        calls.append("link")
        link(*args, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    with Folder(os.open(tmp_path, os.O_RDONLY)) as folder:
        folder.publish("news", b"whole")
    assert calls == ["file", "link", "file", "folder"]


@pytest.mark.parametrize("failing", [2, 3])
def test_a_sync_that_fails_after_the_link_is_told_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The file's second one, then the folder's: a retry would find the name taken, and its writer think it durable."""
    sync, calls = os.fsync, 0

    def synced(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EIO, "Input/output error")
        sync(fd)

    monkeypatch.setattr(os, "fsync", synced)
    with Folder(os.open(tmp_path, os.O_RDONLY)) as folder, pytest.raises(OSError, match="Input/output"):
        folder.publish("news", b"whole")
    assert calls == failing


def test_who_watches_a_scope_is_woken_once_for_each_record(tmp_path: Path) -> None:
    """Not by the drafts, too: a fleet that wakes while the disk is being written delays that."""
    backend = opened(f"file://{tmp_path}/store")
    backend.claim("site", Claim(5, mint()))
    watch, topic = backend.watch(), Topic("markers", "site")
    watch.add(topic)
    backend.put_marker("site", record(token=5), 5)
    events = os.read(watch.fileno(), 1 << 16)
    (*_, name) = _HEADER.unpack_from(events)
    assert len(events) == _HEADER.size + name, "there is more than one event"
    watch.close()
