"""Names of mirrors, assets, config files under many writers, log lines."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinate.errors import (
    BackendUnavailable,
    CommandFailed,
    ConfigError,
    Interrupted,
    StepDeclined,
    StepFailed,
    StepRefused,
    WaitTimeout,
)
from coordinate.types import MarkerRecord, MarkerState
from frappe_bootstrap import config_files, files, image, settings
from frappe_bootstrap.codes import exit_code
from frappe_bootstrap.reporting import Redactor, Reporter
from frappe_bootstrap.waiting import Stop, bear_outages, check_container, ping_redis

if TYPE_CHECKING:
    from pathlib import Path

WRITER = """
import sys
from pathlib import Path
from frappe_bootstrap.config_files import merge
folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(20):
    assert merge(folder / "c.json", folder / "c.lock", {f"{name}-{number}": number})
"""


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30))
def test_a_revision_becomes_a_safe_file_name_and_back(revision: str) -> None:
    """Any image reference works, and two never share a name."""
    name = image.encode_revision(revision)
    assert "/" not in name
    assert name.isascii()
    assert image.decode_revision(name) == revision


def test_mirrors_keep_the_original_names_where_those_are_safe() -> None:
    """External probes look for them; a name too long for a file system ends in a hash."""
    assert image.mirror_name("ready", "v1.2_3-rc") == ".ready_v1.2_3-rc"
    long = [image.mirror_name("ready", "x" * 500 + end) for end in "ab"]
    assert len({*long}) == 2
    assert max(map(len, long)) <= 255


def test_ten_writers_of_a_config_file_lose_nothing(tmp_path: Path) -> None:
    """Hazard 27: the original lost half of the updates with two writers; every reader sees a whole file."""
    (tmp_path / "c.json").write_text('{"unknown": 1}')
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, f"w{number}"]) for number in range(10)]
    while any(writer.poll() is None for writer in writers):
        assert json.loads((tmp_path / "c.json").read_text())["unknown"] == 1
    assert [writer.returncode for writer in writers] == [0] * 10
    assert len(json.loads((tmp_path / "c.json").read_text())) == 201
    assert {path.name for path in tmp_path.iterdir()} == {"c.json", "c.lock"}


def test_a_config_file_that_is_right_is_not_touched(tmp_path: Path) -> None:
    """Point 18: mode and unknown keys stay; defaults never replace a value; no change means no write."""
    path, lock = tmp_path / "c.json", tmp_path / "locks" / "c.lock"
    path.write_text('{"default_site": "other", "kept": [1]}')
    path.chmod(0o640)
    assert config_files.merge(path, lock, {"db_port": 3306}, {"default_site": "s1", "new": 1})
    assert config_files.read(path) == {"default_site": "other", "kept": [1], "db_port": 3306, "new": 1}
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.stat()
    assert not config_files.merge(path, lock, {"db_port": 3306}, {"default_site": "s1"})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_is_replaced_as_a_whole_and_a_failure_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hazard 36: mode and content stay as they were when the rename does not happen; a new file is readable by all."""
    path = tmp_path / "apps.txt"
    files.replace(path, "old")
    assert path.stat().st_mode & 0o7777 == 0o644
    path.chmod(0o660)
    files.replace(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o7777) == ("new", 0o660)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(path, "lost")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("apps.txt", "new")]


def test_a_damaged_config_file_is_left_as_it_is(tmp_path: Path) -> None:
    """It may hold the only copy of a password."""
    (tmp_path / "c.json").write_text('{"half": ')
    with pytest.raises(CommandFailed, match="damaged"):
        config_files.merge(tmp_path / "c.json", tmp_path / "c.lock", {"a": 1})
    assert (tmp_path / "c.json").read_text() == '{"half": '


def test_a_lock_that_somebody_holds_is_waited_for_in_vain_only_so_long(tmp_path: Path) -> None:
    """Hazard 20: the framework's own lock is respected."""
    lock = tmp_path / "site_config.lock"
    assert config_files.is_free(lock)
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert not config_files.is_free(lock)
        with pytest.raises(WaitTimeout, match="held by somebody else"), config_files.locked(lock, timeout=0.05):
            pytest.fail("entered")
    assert config_files.is_free(lock)


def test_assets_resolve_only_if_every_file_is_there(tmp_path: Path) -> None:
    """No map, an empty map and a damaged one are all no map."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for content in ("", "{}", "[]", '{"a": '):
        (folder / "assets.json").write_text(content)
        assert image.unresolved_assets(tmp_path) is None
    (folder / "assets.json").write_text('{"a.js": "/assets/app/a.1.js", "b.css": "/assets/app/b.2.css"}')
    (folder / "app").mkdir()
    (folder / "app" / "a.1.js").touch()
    assert image.unresolved_assets(tmp_path) == ["b.css"]


def test_log_lines_carry_who_and_where_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """A secret is hidden in the ways programs spell it."""
    report = Reporter(Redactor(['p@ss"w', "other"]), "s1", "v1")
    report.line('plain p@ss"w\nquoted p%40ss%22w json p@ss\\"w other', step="site", token=7, elapsed=1.5)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("seconds=1.500 ")[2] for line in lines] == ["plain ***", "quoted *** json *** ***"]
    assert f"[{os.getpid()}] site=s1 rev=v1 step=site token=7 " in lines[0]


def test_a_folder_that_cannot_be_written_is_named(environ: dict[str, str], plain_bench: Path) -> None:
    """All of them at once; missing ones are made; nothing is owned anew."""
    (plain_bench / "logs").rmdir()
    check_container(settings.load(environ))
    assert (plain_bench / "logs").is_dir()
    (plain_bench / "config/pids").rmdir()
    (plain_bench / "config/pids").touch()
    with pytest.raises(ConfigError, match=r"config/pids: .*"):
        check_container(settings.load(environ))


def test_a_redis_that_is_not_there_gives_its_address_and_the_reason() -> None:
    """No password in it."""
    reason = ping_redis("redis://:canary@127.0.0.1:1/0")
    assert reason is not None
    assert reason.startswith("127.0.0.1:1: ")
    assert "canary" not in reason


def test_a_request_to_stop_ends_a_sleep() -> None:
    """Also one that came before it."""
    stop = Stop()
    stop.set(15)
    with pytest.raises(Interrupted):
        stop.sleep(3600)


def test_a_look_that_fails_is_repeated_until_the_limit() -> None:
    """Each reason is said once; one good look is enough; a request to stop is heard."""
    reasons, told = ["down", "down", "starting"], list[str]()

    def look() -> str:
        if reasons:
            raise BackendUnavailable(reasons.pop(0))
        return "healthy"

    assert bear_outages(look, 30.0, Stop(), told.append) == "healthy"
    assert told == ["trying again: down", "trying again: starting"]
    reasons.extend(["gone"] * 100)
    with pytest.raises(BackendUnavailable, match=r"within 0\.1 s .*gone"):
        bear_outages(look, 0.1, Stop(), told.append)
    stop = Stop()
    stop.set(15)
    with pytest.raises(Interrupted):
        bear_outages(look, 30.0, stop, told.append)


def test_the_fleet_ends_with_the_code_of_the_refusal() -> None:
    """Followers know it by the record."""
    record = MarkerRecord("site", "v1", MarkerState.FAILED, exit_code=82)
    assert exit_code(StepFailed("given up", record)) == 82
    assert exit_code(StepFailed("given up", MarkerRecord("site", "v1", MarkerState.FAILED, exit_code=1))) == 76
    assert exit_code(StepRefused("refused", 81)) == 81
    assert exit_code(StepDeclined("not here", 82)) == 82
    assert exit_code(Interrupted("stopped", 2)) == 130
