"""Fleets in which a step cannot be done by everybody, in time, or on top of what is left; real processes."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import msgspec
import pytest

from coordinate import connect
from tests.frappe.conftest import LIMIT, Fleet

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

NO_SECRETS = {"DB_ROOT_PASS": "", "ADMIN_PASS": ""}
# The whole bootstrap, but it waits for a lock for an instant only.
IMPATIENT = """
import sys
from frappe_bootstrap import cli, work
assert work.LOCKS_TIMEOUT > 1
work.LOCKS_TIMEOUT = 0.3
cli.main(sys.argv[1:])
"""
HALF_INSTALLED = {"STANDIN_FAIL": "install-app:after_install"}


def read_until(child: subprocess.Popen[str], words: str) -> None:
    """Return when a replica has logged something."""
    assert child.stderr
    while words not in (line := child.stderr.readline()):
        assert line, f"it ended without: {words}"


def test_the_one_replica_that_has_the_secrets_makes_the_site(fleet: Fleet) -> None:
    """Hazard 33: the others have been first, cannot do it, and wait; that costs nothing, everybody serves."""
    others = [fleet.start("echo", "serving", **NO_SECRETS) for _ in range(2)]
    for child in others:
        read_until(child, "declined: site s1 does not exist; to create it")
    able = fleet.start("echo", "serving")
    for child in (able, *others):
        out, err = child.communicate(timeout=LIMIT)
        assert (child.returncode, out) == (0, "serving\n"), err
    record = fleet.record("site")
    assert (record["state"], record["failures"], record["crashes"]) == ("done", 0, 0)
    assert fleet.commands()["new-site"] == 1


def test_who_must_not_create_ends_and_does_not_keep_others_from_it(fleet: Fleet) -> None:
    """SKIP_INIT=1 is about this replica: 82 at once, and nothing is held against the step."""
    assert fleet.run("echo", "serving", SKIP_INIT="1")[0] == 82
    assert fleet.record("site")["failures"] == 0
    assert fleet.run("echo", "serving")[:2] == (0, "serving\n")


def test_a_wrong_app_list_can_be_put_right_at_once(fleet: Fleet) -> None:
    """It is the replica's own environment; no record has to be cleared for the next one."""
    assert fleet.run(APPS="stranger")[0] == 81
    assert fleet.run("echo", "serving")[:2] == (0, "serving\n")


def test_a_step_that_takes_too_long_has_failed_with_its_last_lines(fleet: Fleet) -> None:
    """STEP_TIMEOUT; what it started is dead, the fleet's budget counts it."""
    assert fleet.run()[0] == 0
    slow = {"STANDIN_PAUSE": f"migrate:locked={fleet.root / 'never'}", "STEP_TIMEOUT": "3", "IMAGE_REV": "2"}
    code, out, err = fleet.run("echo", "serving", **slow)
    assert (code, out) == (76, ""), err
    assert "ran longer than" in err
    record = fleet.record("migrate", "2")
    assert (record["state"], record["failures"], record["exit_code"]) == ("failed", 3, 124)


@pytest.mark.parametrize("cleared", [False, True])
def test_an_app_left_half_installed_is_healed_by_another_revision(fleet: Fleet, cleared: bool) -> None:  # noqa: FBT001
    """real-frappe 6: it is listed, its hook never ran; a record that says failed is no reason to forget that."""
    code, _, err = fleet.run(**HALF_INSTALLED)
    assert code == 76, err
    assert "demo_app" in fleet.bench.installed()
    assert fleet.bench.runs_of("demo_app:after_install") == 0
    if cleared:
        fleet.reset("apps")
    code, _, err = fleet.run(IMAGE_REV="2")
    assert code == 0, err
    assert fleet.bench.runs_of("demo_app:after_install") == 1


def test_an_app_left_half_installed_is_healed_after_a_reset(fleet: Fleet) -> None:
    """A reset forgives the failures; it does not forget what is half done."""
    assert fleet.run(**HALF_INSTALLED)[0] == 76
    fleet.reset("apps")
    assert fleet.record("apps")["failures"] == 0
    code, _, err = fleet.run()
    assert code == 0, err
    assert fleet.bench.runs_of("demo_app:after_install") == 1


def test_an_app_left_half_installed_is_healed_although_nobody_wants_it_any_more(fleet: Fleet) -> None:
    """The site lists it, so its pages are served."""
    assert fleet.run(**HALF_INSTALLED)[0] == 76
    code, _, err = fleet.run(IMAGE_REV="2", APPS="")
    assert code == 0, err
    assert fleet.bench.runs_of("demo_app:after_install") == 1


def test_a_lock_that_does_not_become_free_ends_the_whole_fleet(fleet: Fleet) -> None:
    """Hazard 4: 83 by record, also for a member that never led; nobody serves unmigrated."""
    assert fleet.run(STANDIN_FAIL="migrate:locked")[0] == 76
    lock = fleet.sites / "s1" / "locks" / "bench_migrate.lock"
    with lock.open("r+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        replicas = [fleet.start("echo", "serving", program=IMPATIENT, IMAGE_REV="2") for _ in range(2)]
        for child in replicas:
            out, err = child.communicate(timeout=LIMIT)
            assert (child.returncode, out) == (83, ""), err
            assert "bench_migrate.lock" in err
    record = fleet.record("config", "2")
    assert (record["state"], record["exit_code"], record["failures"]) == ("failed", 83, 3)


def counting_hook(fleet: Fleet) -> tuple[str, Path]:
    """Return a program that counts its calls, as a backup would, and the file with a line for each."""
    path, count = fleet.root / "hook.sh", fleet.root / "backups"
    path.write_text(f"#!/bin/sh\necho backup >> {count}\n")
    path.chmod(0o755)
    count.touch()
    return str(path), count


def age(fleet: Fleet, step: str, revision: str, seconds: float) -> None:
    """Let the end of an attempt have been that much earlier."""
    with connect(f"file://{fleet.sites}/.frappe_bootstrap") as coordinator:
        markers = coordinator.markers("frappe/s1")
        view = markers.view()
        record = view.find(step, revision)
        assert record is not None
        assert view.claim is not None
        earlier = msgspec.structs.replace(record, finished=record.finished - seconds)
        markers.backend.put_marker("frappe/s1", earlier, view.claim.token)


def test_a_container_that_is_started_again_and_again_does_not_try_again_and_again(fleet: Fleet) -> None:
    """Each attempt would make one more backup of what is half migrated: three, then one an hour, or by command."""
    assert fleet.run()[0] == 0
    hook, backups = counting_hook(fleet)
    failing = {"IMAGE_REV": "2", "PRE_MIGRATE_HOOK": hook, "STANDIN_FAIL": "migrate:after_patches"}
    assert fleet.run(**failing)[0] == 76
    for seconds, attempts in ((0, 3), (120, 3), (3500, 4), (0, 4)):
        age(fleet, "migrate", "2", seconds)
        code, out, err = fleet.run("echo", "serving", **failing)
        assert (code, out) == (76, ""), err
        assert "stand-in failure at migrate:after_patches" in err
        assert (fleet.record("migrate", "2")["attempts"], len(backups.read_text().splitlines())) == (attempts,) * 2
    assert "migrate  refuse: budget spent" in fleet.run("plan", IMAGE_REV="2")[1]
    assert "migrate  do: " in fleet.run("plan", IMAGE_REV="2", RETRY_AFTER_SECS="0")[1]
    assert fleet.run("retry", "s1", IMAGE_REV="2")[0] == 0
    assert fleet.run("echo", "serving", IMAGE_REV="2")[:2] == (0, "serving\n")


def test_a_refusal_costs_no_backup_and_is_looked_at_again_after_a_minute(fleet: Fleet) -> None:
    """UPGRADE_MODE=refuse: who comes to mend it does not wait for an hour, and nothing counts against the step."""
    assert fleet.run()[0] == 0
    hook, backups = counting_hook(fleet)
    refused = {"IMAGE_REV": "2", "PRE_MIGRATE_HOOK": hook, "UPGRADE_MODE": "refuse"}
    for attempts in range(1, 5):
        assert fleet.run("echo", "serving", **refused)[:2] == (86, "")
        record = fleet.record("migrate", "2")
        assert (record["attempts"], record["failures"], backups.read_text()) == (attempts, 0, "")
        age(fleet, "migrate", "2", 61)
    assert fleet.run("echo", "serving", **{**refused, "UPGRADE_MODE": "live"})[:2] == (0, "serving\n")
    assert backups.read_text() == "backup\n"
