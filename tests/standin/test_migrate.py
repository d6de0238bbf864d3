"""migrate: locks, patches, what a kill leaves (real-frappe 7; operating-frappe 2, 3, 16)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.standin.fleet import make_bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.standin.fleet import Bench, Gate

PATCHES = ("p1", "p2", "p3")


@pytest.fixture
def upgraded(site: Bench) -> Bench:
    """Return a bench whose image has three new patches of demo_app."""
    make_bench.make_app(site.path, "demo_app", [])
    site.ok("--site", "s1", "install-app", "demo_app")
    make_bench.make_app(site.path, "demo_app", PATCHES)
    return site


def runs(bench: Bench) -> list[int]:
    """Return how often each patch took effect."""
    return [bench.runs_of(f"patch:demo_app.patches.{name}") for name in PATCHES]


def logged(bench: Bench, skipped: int = 0) -> list[str]:
    """Return the logged patches of demo_app."""
    rows = bench.sql("SELECT patch FROM `tabPatch Log` WHERE skipped = %s", skipped)
    return sorted(patch.rpartition(".")[2] for (patch,) in rows if patch.startswith("demo_app"))


def test_each_patch_is_committed_and_logged_on_its_own(upgraded: Bench) -> None:
    """real-frappe 7: killed in p2, p1 stays and is not run again; p2's uncommitted write is gone."""
    assert upgraded.run("--site", "s1", "migrate", STANDIN_DIE="migrate:in_patch@p2").returncode == -9
    assert (runs(upgraded), logged(upgraded)) == ([1, 0, 0], ["p1"])
    upgraded.ok("--site", "s1", "migrate")
    assert (runs(upgraded), logged(upgraded)) == ([1, 1, 1], ["p1", "p2", "p3"])


@pytest.mark.parametrize("point", ["migrate:doctypes", "migrate:after_migrate", "migrate:in_patch"])
def test_after_a_kill_anywhere_the_next_migrate_exits_0(upgraded: Bench, point: str) -> None:
    """real-frappe 7: the lock file stays, unlocked and empty; the config is unchanged."""
    before = upgraded.config()
    upgraded.run("--site", "s1", "migrate", STANDIN_DIE=point)
    assert (upgraded.sites / "s1" / "locks" / "bench_migrate.lock").stat().st_size == 0
    assert upgraded.config() == before
    upgraded.ok("--site", "s1", "migrate")


def test_a_failing_patch_is_1_and_with_skip_failing_it_is_0_and_tried_again(upgraded: Bench) -> None:
    """real-frappe 4: recorded as skipped."""
    fail = {"STANDIN_FAIL": "migrate:in_patch@p2"}
    assert upgraded.run("--site", "s1", "migrate", **fail).returncode == 1
    assert upgraded.run("--site", "s1", "migrate", "--skip-failing", **fail).returncode == 0
    assert (logged(upgraded), logged(upgraded, skipped=1)) == (["p1", "p3"], ["p2"])
    upgraded.ok("--site", "s1", "migrate")
    assert logged(upgraded) == ["p1", "p2", "p3"]


def test_the_second_migrate_gives_up_after_a_second_and_the_first_goes_on(
    upgraded: Bench, gate: Callable[[str], Gate]
) -> None:
    """real-frappe 7: Failed to aquire lock: bench_migrate."""
    held = gate("migrate:in_patch@p1")
    with upgraded.started("--site", "s1", "migrate", **held.environ) as first:
        held.wait()
        second = upgraded.run("--site", "s1", "migrate")
        assert second.returncode == 1
        assert "Failed to aquire lock: bench_migrate" in second.stderr
        held.open()
        first.communicate(timeout=120)
    assert first.returncode == 0


@pytest.mark.parametrize(
    ("ending", "code", "rewritten"),
    [
        ("STANDIN_FAIL", 1, True),
        ("STANDIN_DIE", -9, False),
        (signal.SIGINT, 1, True),
        (signal.SIGTERM, -15, False),
    ],
)
def test_touched_tables_tells_how_migrate_ended(
    upgraded: Bench, gate: Callable[[str], Gate], ending: str | int, code: int, rewritten: int
) -> None:
    """real-frappe 7: deleted at the start, rewritten also after a failure or SIGINT, not after a kill."""
    path = upgraded.sites / "s1" / "touched_tables.json"
    path.write_text("[]")
    point = "migrate:in_patch@p2"
    if isinstance(ending, str):
        assert upgraded.run("--site", "s1", "migrate", **{ending: point}).returncode == code
    else:
        held = gate(point)
        with upgraded.started("--site", "s1", "migrate", **held.environ) as process:
            held.wait()
            assert not path.exists()
            os.kill(process.pid, ending)
            out, _ = process.communicate(timeout=120)
        assert process.returncode == code
        assert ("Aborted!" in out) == (ending == signal.SIGINT)
    assert path.exists() == bool(rewritten)


def test_a_connection_cut_midway_is_1_and_the_next_run_is_fine(upgraded: Bench, gate: Callable[[str], Gate]) -> None:
    """real-frappe 4 and 7: exit 1, touched_tables.json stays absent."""
    held = gate("migrate:in_patch@p2")
    with upgraded.started("--site", "s1", "migrate", **held.environ) as process:
        held.wait()
        [(number,)] = upgraded.sql(
            "SELECT ID FROM information_schema.processlist WHERE ID <> CONNECTION_ID() AND USER = %s",
            upgraded.config()["db_name"],
        )
        upgraded.sql(f"KILL {number}")
        held.open()
        process.communicate(timeout=120)
    assert process.returncode == 1
    assert not (upgraded.sites / "s1" / "touched_tables.json").exists()
    upgraded.ok("--site", "s1", "migrate")


def test_without_the_cache_server_migrate_refuses_before_any_change(site: Bench) -> None:
    """real-frappe 4: redis_cache down is exit 1; new-site and list-apps do not mind."""
    path = site.sites / "s1" / "touched_tables.json"
    path.write_text("[]")
    done = site.run("--site", "s1", "migrate", FRAPPE_REDIS_CACHE="redis://127.0.0.1:1")
    assert (done.returncode, path.exists()) == (1, True)
    assert "Service redis_cache is not running" in done.stdout
    site.ok("--site", "s1", "list-apps", FRAPPE_REDIS_CACHE="redis://127.0.0.1:1")


def test_a_redis_url_without_a_port_crashes_migrate(site: Bench) -> None:
    """operating-frappe 16: TypeError."""
    done = site.run("--site", "s1", "migrate", FRAPPE_REDIS_CACHE="redis://127.0.0.1")
    assert done.returncode == 1
    assert "TypeError" in done.stderr


@pytest.mark.parametrize("flag", [0, 1])
def test_migrate_neither_sets_nor_clears_maintenance_mode(site: Bench, gate: Callable[[str], Gate], flag: int) -> None:
    """real-frappe 7: before, during and after."""
    site.ok("--site", "s1", "set-maintenance-mode", "on" if flag else "off")
    held = gate("migrate:doctypes@frappe")
    with site.started("--site", "s1", "migrate", **held.environ) as process:
        held.wait()
        assert site.config()["maintenance_mode"] == flag
        held.open()
        process.communicate(timeout=120)
    assert (process.returncode, site.config()["maintenance_mode"]) == (0, flag)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("logs", "FileNotFoundError"),
        ("config", "Site s1 does not exist!"),
        ("bad json", "is invalid"),
        ("empty", "db_name missing"),
    ],
)
def test_connecting_fails_for_reasons_that_hide_the_truth(site: Bench, damage: str, text: str) -> None:
    """operating-frappe 3: missing logs folder, missing, damaged and empty config; always exit 1."""
    folder = site.sites / "s1"
    if damage == "logs":
        (folder / "logs").rename(folder / "gone")
    elif damage == "config":
        (folder / "site_config.json").unlink()
    else:
        (folder / "site_config.json").write_text({"bad json": "{", "empty": "{}"}[damage])
    done = site.run("--site", "s1", "migrate")
    assert done.returncode == 1
    assert text in done.stdout + done.stderr
    if damage == "logs":
        site.ok("--site", "s1", "migrate", FRAPPE_STREAM_LOGGING="1")


def test_a_grandchild_in_its_own_session_outlives_a_killed_migrate(site: Bench, tmp_path: Path) -> None:
    """DESIGN P5: killing the process group is not enough, so the knob makes such a process."""
    beats = tmp_path / "beats"
    os.mkfifo(beats)
    die = {"STANDIN_SPAWN": f"setsid={beats}", "STANDIN_DIE_GROUP": "migrate:doctypes"}
    assert site.run("--site", "s1", "migrate", **die).returncode == -9
    with beats.open() as stream:
        first, second = stream.readline().split(), stream.readline().split()
        os.kill(int(first[0]), signal.SIGKILL)
    assert int(second[1]) > int(first[1])
    assert os.getsid(0) != int(first[0])


def test_the_launcher_writes_passwords_to_bench_log_and_the_module_does_not(site: Bench) -> None:
    """real-frappe 10: bench writes its full command line to logs/bench.log."""
    log = site.path / "logs" / "bench.log"
    site.ok("--site", "s1", "set-admin-password", "canary-1")
    assert not log.exists()
    launcher = [str(site.path / "env" / "bin" / "bench"), "--site", "s1", "set-admin-password", "canary-2"]
    subprocess.run(launcher, check=True, env={"PATH": os.environ["PATH"], **site.environ}, timeout=120)
    assert "canary-2" in log.read_text()


def test_limited_points_count_over_the_fleet_and_the_log_hides_passwords(site: Bench, tmp_path: Path) -> None:
    """The knobs themselves: the first two of three processes die, every event is one JSON line."""
    knobs = {"STANDIN_DIE": "migrate:locked*2", "STANDIN_LOG": str(tmp_path / "log")}
    codes = [site.run("--site", "s1", "migrate", **knobs).returncode for _ in range(3)]
    assert codes == [-9, -9, 0]
    site.ok("--site", "s1", "set-admin-password", "x", **knobs)
    assert site.new_site(**knobs).returncode == 1
    text = (tmp_path / "log").read_text()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert (events.count("begin"), events.count("end")) == (5, 3)
    assert site.root["password"] not in text
    assert list(Path(site.environ["STANDIN_DIR"]).glob("count-*"))
