"""Whole boots: real processes, the stand-in bench, leases and markers in files."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap import image
from tests.frappe.conftest import DONE, LIMIT, Fleet, done_steps
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    from pathlib import Path

COLD = {"new-site": 1, "scheduler": 1, "migrate": 2, "install-app": 1, "build": 1}


def test_three_cold_replicas_serve_and_every_step_is_done_once(fleet: Fleet) -> None:
    """One leads, two wait, none is left behind; the mirrors of the original are there."""
    replicas = [fleet.start("sh", "-c", "echo serving $IMAGE_REV") for _ in range(3)]
    results = [(child.communicate(timeout=LIMIT), child.returncode) for child in replicas]
    assert [(out, code) for (out, _), code in results] == [("serving registry/image:1\n", 0)] * 3
    done = [step for (_, err), _ in results for step in done_steps(err)]
    assert sorted(done) == sorted(DONE)
    assert fleet.commands() == COLD
    assert fleet.bench.installed() == ["frappe", "demo_app"]
    for kind in ("migrated", "apps_installed", "assets_built", "ready"):
        assert (fleet.sites / image.mirror_name(kind, "registry/image:1")).exists()
    assert (fleet.sites / "apps.txt").read_text().split() == ["frappe", "demo_app"]
    assert "encryption_key" in fleet.bench.config()


def test_a_warm_replica_runs_no_bench_command_and_follows_a_changed_environment(fleet: Fleet) -> None:
    """Point 30, hazard 25: a warm boot builds nothing.

    Moved servers reach the config although the revision is done; the same environment writes nothing.
    """
    assert fleet.run()[0] == 0
    path = fleet.sites / "common_site_config.json"
    before = path.stat()
    assert fleet.run()[0] == 0
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert fleet.run(REDIS_SOCKETIO_PORT="7777")[0] == 0
    assert json.loads(path.read_text())["redis_socketio"] == "redis://127.0.0.1:7777"
    assert fleet.commands() == COLD


def test_a_new_revision_migrates_and_installs_what_is_missing(fleet: Fleet) -> None:
    """No site is created again; the app comes after the migration."""
    assert fleet.run(APPS="", AUTO_INSTALL_NEW_APPS="0")[0] == 0
    assert fleet.bench.installed() == ["frappe"]
    assert fleet.run(IMAGE_REV="2")[0] == 0
    assert fleet.bench.installed() == ["frappe", "demo_app"]
    assert fleet.commands() == {**COLD, "migrate": 3}


def test_the_list_of_apps_is_made_at_once_and_changed_only_to_migrate(fleet: Fleet) -> None:
    """Point 11: no command works without it; another list is an older image's, and recorded before it goes."""
    path = fleet.sites / "apps.txt"
    assert fleet.run()[0] == 0
    path.unlink()
    assert fleet.run()[0] == 0
    assert path.read_text().split() == ["frappe", "demo_app"]
    path.write_text("frappe\ndemo_app\nold_app\n")
    assert fleet.run()[0] == 0
    assert path.read_text().split() == ["frappe", "demo_app", "old_app"]
    assert fleet.run(IMAGE_REV="2")[0] == 0
    assert path.read_text().split() == ["frappe", "demo_app"]
    assert fleet.record("migrate", "2")["notes"]["previous_apps"] == "frappe demo_app old_app"


def test_a_warm_replica_restores_the_files_that_probes_look_for(fleet: Fleet) -> None:
    """Somebody has deleted them; the record, not they, says that the revision is done."""
    assert fleet.run()[0] == 0
    mirrors = [fleet.sites / image.mirror_name(kind, "registry/image:1") for kind in ("ready", "migrated")]
    before = [path.read_text() for path in mirrors]
    for path in mirrors:
        path.unlink()
    code, _, err = fleet.run()
    assert (code, ".ready_" in err) == (0, True)
    assert all(re.fullmatch(r"site s1 token [1-9]\d*\n", path.read_text()) for path in mirrors)
    assert len(before) == 2
    assert fleet.commands() == COLD


def test_a_warm_replica_bears_a_look_that_fails(fleet: Fleet) -> None:
    """The bench's Python, asked again after the servers had answered, fails twice: no reason to give up."""
    assert fleet.run()[0] == 0
    looks = fleet.fail_looks(2, 3)
    code, out, err = fleet.run("echo", "serving")
    assert (code, out) == (0, "serving\n"), err
    assert "no look today" in err
    assert int(looks.read_text()) == 4
    fleet.fail_looks(*range(2, 100))
    code, out, err = fleet.run("echo", "serving", WAIT_TIMEOUT="1")
    assert (code, out) == (69, "")
    assert "no look today" in err


def test_another_replica_takes_over_and_ends_the_dead_leaders_database_session(fleet: Fleet, tmp_path: Path) -> None:
    """A statement that goes on without its client is not waited for by luck: its session is killed."""
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:locked")
    leader = fleet.start(**gate.environ, STANDIN_DB_LINGER="600")
    gate.wait()
    follower = fleet.start("echo", "serving")
    assert follower.stderr
    while "waiting" not in (line := follower.stderr.readline()):
        assert line
    leader.kill()
    out, err = follower.communicate(timeout=LIMIT)
    assert (follower.returncode, out) == (0, "serving\n")
    assert "takeover" in err
    assert fleet.bench.as_root("SELECT COUNT(*) FROM information_schema.processlist")[0][0] == 1


def test_an_app_whose_installation_was_cut_off_is_installed_again_by_force(fleet: Fleet) -> None:
    """Hazard 10: it is listed already, and a plain install-app would never run its hook (real-frappe 6)."""
    code, _, err = fleet.run(STANDIN_DIE="install-app:after_install*1")
    assert (code, fleet.commands()["install-app"]) == (0, 2), err
    assert fleet.bench.runs_of("demo_app:after_install") == 1


def test_an_empty_volume_with_a_live_database_is_refused_and_nothing_is_lost(fleet: Fleet) -> None:
    """The original would have dropped it."""
    assert fleet.run(DB_NAME="precious")[0] == 0
    rows = fleet.bench.tables()
    config = (fleet.sites / "s1" / "site_config.json").read_text()
    (fleet.sites / "s1").rename(fleet.root / "elsewhere")
    code, _, err = fleet.run(DB_NAME="precious", IMAGE_REV="2")
    assert code == 81
    assert "is the sites volume empty" in err
    assert not (fleet.sites / "s1").exists()
    assert fleet.record("site", "2")["attempts"] == 1
    (fleet.root / "elsewhere").rename(fleet.sites / "s1")
    assert fleet.bench.tables() == rows
    assert (fleet.sites / "s1" / "site_config.json").read_text() == config
    assert fleet.commands()["new-site"] == 1


def test_a_record_that_the_database_contradicts_is_not_believed(fleet: Fleet) -> None:
    """Everything is recorded as done, but the site is gone: nobody serves."""
    assert fleet.run()[0] == 0
    (fleet.sites / "s1").rename(fleet.root / "elsewhere")
    code, out, err = fleet.run("echo", "serving")
    assert (code, out) == (81, "")
    assert "recorded as done" in err


def test_a_half_made_site_of_somebody_else_is_refused_by_the_whole_fleet(fleet: Fleet) -> None:
    """Hazard 3: repair is a decision; the log has the reason and the command, and the site is left as it was."""
    (fleet.sites / "s1").mkdir(parents=True)
    replicas = [fleet.start("echo", "serving") for _ in range(3)]
    for child in replicas:
        out, err = child.communicate(timeout=LIMIT)
        assert (child.returncode, out) == (81, ""), err
        assert "half-made" in err
        assert "frappe-bootstrap repair s1" in err
    assert fleet.commands() == {}
    assert fleet.record("site")["attempts"] == 1


def test_a_wrong_password_of_the_site_is_unreachable_and_never_a_reason_to_create(fleet: Fleet) -> None:
    """Three causes are named."""
    assert fleet.run()[0] == 0
    path = fleet.sites / "s1" / "site_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "db_password": "wrong"}))
    code, _, err = fleet.run(IMAGE_REV="2", DB_PASS="")
    assert code == 81
    assert "bound to another host" in err
    assert fleet.commands() == COLD


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"SKIP_INIT": "1"}, 82, "SKIP_INIT=1 forbids"),
        ({"DB_ROOT_PASS": "", "WAIT_TIMEOUT": "2"}, 81, "DB_ROOT_PASS and ADMIN_PASS"),
        ({"DB_ROOT_PASS": "wrong", "WAIT_TIMEOUT": "2"}, 81, "does not let root in"),
        ({"APPS": "stranger"}, 81, "which the image does not have"),
        ({"DB_HOST": ""}, 78, "DB_HOST: is required"),
        ({"COORDINATE_URL": "redis+nonsense"}, 78, "store URL"),
    ],
)
def test_what_cannot_be_done_ends_with_a_code_of_its_own(
    fleet: Fleet, change: dict[str, str], code: int, words: str
) -> None:
    """No traceback, no 'follower', no command started."""
    found, out, err = fleet.run("echo", "serving", **change)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_failing_step_ends_every_member_with_the_last_lines(fleet: Fleet) -> None:
    """After the fleet's budget; the reason is what the command printed, without what the shim tells only us."""
    replicas = [fleet.start("echo", "serving", STANDIN_FAIL="migrate:locked") for _ in range(2)]
    for child in replicas:
        out, err = child.communicate(timeout=LIMIT)
        assert (child.returncode, out) == (76, "")
        assert "stand-in failure at migrate:locked" in err
        assert "database session" not in err
    record = fleet.record("migrate")
    assert record["notes"]["sessions"]
    assert "stand-in failure" in record["detail"]
    assert "database session" not in record["detail"]
    assert fleet.commands()["migrate"] == 3


def test_servers_that_do_not_come_up_are_named_with_their_reasons(fleet: Fleet) -> None:
    """Exit 69 at the deadline."""
    (fleet.root / "server" / "down").touch()
    code, _, err = fleet.run(WAIT_TIMEOUT="0.5", REDIS_CACHE_PORT="1")
    assert code == 69
    assert re.search(r"redis_cache: 127.0.0.1:1: ", err)
    assert "Can't connect to MySQL server" in err


def test_a_signal_while_waiting_ends_with_its_own_code(fleet: Fleet) -> None:
    """As process 1 there would be no default reaction."""
    (fleet.root / "server" / "down").touch()
    child = fleet.start()
    assert child.stderr
    while "waiting for database" not in (line := child.stderr.readline()):
        assert line
    child.terminate()
    child.communicate(timeout=LIMIT)
    assert child.returncode == 128 + signal.SIGTERM


def test_a_signal_stops_the_running_step_and_the_next_replica_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    """It counts against nobody's budget."""
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:locked")
    child = fleet.start(**gate.environ)
    gate.wait()
    child.terminate()
    _, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 128 + signal.SIGTERM, err
    assert fleet.run()[0] == 0


def test_no_secret_is_seen_by_anybody(fleet: Fleet, tmp_path: Path) -> None:
    """Hazard 31: not in the process list while a site is made, logs, markers, mirrors, or the command's environment."""
    spy = tmp_path / "spy.sh"
    spy.write_text(f"#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null >> {tmp_path}/seen\n")
    spy.chmod(0o755)
    points = ",".join(f"{point}={spy}" for point in ("new-site:db_user", "new-site:admin", "migrate:locked"))
    files = {name: tmp_path / name for name in fleet.canaries}
    for name, path in files.items():
        path.write_text(fleet.canaries[name] + "\n")
    given = {f"{name}_FILE": str(path) for name, path in files.items()} | dict.fromkeys(files, "")
    code, out, err = fleet.run("env", STANDIN_DIE_CALL=points, **given)
    assert code == 0, err
    seen = [err, out, (tmp_path / "seen").read_bytes().decode(errors="replace")]
    folders = (fleet.sites / ".frappe_bootstrap", tmp_path / "lease", fleet.benches[0] / "logs")
    seen += [path.read_text() for folder in folders for path in folder.rglob("*") if path.is_file()]
    seen += [path.read_text() for path in fleet.sites.glob(".*_*") if path.is_file()]
    assert not [text for text in seen for canary in fleet.canaries.values() if canary in text]
    assert not re.search(r"_PASS|COORDINATE_URL", out)
    assert "frappe_bootstrap" in seen[2]


def test_the_command_is_looked_for_as_a_shell_would(fleet: Fleet) -> None:
    """127 and 126, as everywhere."""
    assert fleet.run("--", "no-such-program")[0] == 127
    assert fleet.run("--", os.devnull)[0] == 126
    assert fleet.run("--wrong")[0] == 64
    assert "SITE" in fleet.run("--help")[1]
