"""kill -9 of the leader at points of every command and between them; another container takes over, a third serves."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.frappe.conftest import DONE, LIMIT, Fleet, done_steps, new_fleet
from tests.frappe.test_unwilling import read_until
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

CREATION = [
    *("new-site:begin", "new-site:site_dir", "new-site:locked", "new-site:config", "new-site:sql_import@5"),
    *("new-site:tables14", "new-site:doctypes@4", "new-site:doctypes@84", "new-site:installed_apps"),
    *("new-site:admin", "new-site:end"),
    # Between the commands of a creation, in our own code.
    *("after steps.creation.Creation._begin", "before bench.Bench.prepare", "after bench.Bench.prepare"),
    *("before steps.creation.Creation._finish", "after config_files.write_site*2"),
    *("before PRE_SITE_HOOK", "before POST_SITE_HOOK"),
]
UPGRADE = [
    *("migrate:begin", "migrate:locked", "migrate:before_migrate@frappe", "migrate:patch@p9", "migrate:in_patch@p9"),
    *("migrate:patch_done@p9", "migrate:doctypes@demo_app", "migrate:after_patches"),
    *("migrate:after_migrate@demo_app", "migrate:end"),
    *("install-app:begin", "install-app:before_install", "install-app:doctypes", "install-app:installed_apps"),
    *("install-app:after_install", "install-app:end"),
    *("build:begin", "build:bundles", "build:empty_json@assets.json", "build:end"),
    # Between the commands of an upgrade, in our own code.
    *("before maintenance.Maintenance.on", "after maintenance.Maintenance.on", "after maintenance.Maintenance.mark*2"),
    *("before revisions.begin", "after revisions.begin", "before revisions.finish", "after bench.Bench.write_record*2"),
    *("after revisions.finish", "before upgrade.reopen", "after upgrade.reopen"),
    *("after steps.mirrors.Mirrors._write_mirror*2", "before POST_MIGRATE_HOOK", "before PRE_APPS_HOOK"),
    *("before POST_APPS_HOOK", "before PRE_ASSETS_HOOK", "before POST_READY_HOOK"),
]
# The whole bootstrap; at the Nth call of one of its own functions it tells the test, and waits to be killed.
STOPPING = """
import functools, os, pkgutil, signal, sys
from frappe_bootstrap import cli
phase, place = os.environ["STOP_AT"].split()
place, _, number = place.partition("*")
path, _, name = place.rpartition(".")
owner = pkgutil.resolve_name(f"frappe_bootstrap.{path}")
real, left = getattr(owner, name), [int(number or 1)]
def stop():
    left[0] -= 1
    if not left[0]:
        with open(os.environ["STOP_TELL"], "w") as pipe:
            pipe.write("here\\n")
        while True:
            signal.pause()
@functools.wraps(real)
def stopping(*args, **options):
    if phase == "before":
        stop()
    result = real(*args, **options)
    if phase == "after":
        stop()
    return result
setattr(owner, name, stopping)
cli.main(sys.argv[1:])
"""
FLAGS = {"maintenance_mode": 0, "pause_scheduler": 1}
NEW_APP, NEW_REVISION = "late_app", "2"


def leader_at(fleet: Fleet, folder: Path, point: str, **environ: str) -> subprocess.Popen[str]:
    """Return a leader that has come to a point and stays there."""
    folder.mkdir()
    if ":" in point:
        gate = Gate(folder, point)
        environ |= gate.environ
        child = fleet.start("echo", "serving", **environ)
    else:
        gate = Gate(folder, "")
        environ["STOP_AT"], environ["STOP_TELL"] = point, str(folder / "arrival")
        program = STOPPING
        if point.endswith("_HOOK"):
            hook = folder / "hook.sh"
            hook.write_text(f"#!/bin/sh\necho here > {folder / 'arrival'}\nexec sleep {LIMIT}\n")
            hook.chmod(0o755)
            environ[point.removeprefix("before ")] = str(hook)
            program = ""
        child = fleet.start("echo", "serving", program=program, **environ)
    arrival = os.open(folder / "arrival", os.O_RDONLY | os.O_NONBLOCK)
    with open(arrival, closefd=True):  # noqa: PTH123 -- a descriptor
        while not (select.select([arrival], [], [], 0.2)[0] and os.read(arrival, 100)):
            assert child.poll() is None, f"it never came to {point}: {child.communicate()[1]}"
    return child


def take_over(fleet: Fleet, leader: subprocess.Popen[str], **environ: str) -> tuple[str, str]:
    """Kill the leader while another container waits for it; return what each of the two logged."""
    follower = fleet.start("echo", "serving", **environ)
    read_until(follower, "waiting")
    leader.send_signal(signal.SIGKILL)
    out, err = follower.communicate(timeout=LIMIT)
    assert (follower.returncode, out) == (0, "serving\n"), err
    _, before = leader.communicate(timeout=LIMIT)
    assert leader.returncode == -signal.SIGKILL
    return before, err


def tokens(log: str) -> list[int]:
    """Return the tokens in a log."""
    return [int(found) for found in re.findall(r" token=(\d+)", log)]


def judge(fleet: Fleet, before: str, after: str, revision: str, apps: list[str]) -> None:
    """The site is healthy and as before, each step was done once, under growing tokens; one more container serves."""
    commands = fleet.commands()
    code, out, third = fleet.run("echo", "serving", IMAGE_REV=revision, APPS=" ".join(apps[1:]))
    assert (code, out) == (0, "serving\n"), third
    assert fleet.commands() == commands
    done = Counter(done_steps(before) + done_steps(after))
    assert done == dict.fromkeys(DONE, 1), (before, after)
    records = [fleet.record(step, revision) for step in ("config", "site", "migrate", "apps", "assets", "ready")]
    assert {record["state"] for record in records} == {"done"}
    written = [record["token"] for record in records]
    assert written == sorted(written)
    assert max(tokens(before)) < min(tokens(after))
    assert fleet.bench.installed() == apps
    assert fleet.bench.sql("SELECT name FROM tabUser WHERE name = 'Administrator'")
    assert fleet.bench.as_root("SELECT COUNT(*) FROM information_schema.processlist")[0][0] == 1
    databases = {row[0] for row in fleet.bench.as_root("SHOW DATABASES")}
    assert databases == {"precious", fleet.bench.config()["db_name"]}
    with fleet.bench.connect(database="precious") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM orders")
        assert list(cursor.fetchall()) == [("ours",)]


def make_precious(fleet: Fleet) -> None:
    """Make a database of somebody else on the same server."""
    fleet.add()
    (fleet.sites / "common_site_config.json").write_text(json.dumps({"db_host": "127.0.0.1", "db_port": 3306}))
    fleet.bench.as_root("CREATE DATABASE precious")
    with fleet.bench.connect(database="precious") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (name VARCHAR(10))")
        cursor.execute("INSERT INTO orders VALUES ('ours')")
        connection.commit()


@pytest.mark.parametrize("point", CREATION)
def test_a_leader_killed_in_a_creation_is_replaced(fleet: Fleet, tmp_path: Path, point: str) -> None:
    """The same database is filled, nobody else's is touched, the site was never closed."""
    make_precious(fleet)
    leader = leader_at(fleet, tmp_path / "gate", point)
    before, after = take_over(fleet, leader)
    judge(fleet, before, after, "registry/image:1", ["frappe", "demo_app"])
    assert not {"maintenance_mode", "pause_scheduler", "frappe_bootstrap_maintenance"} & fleet.bench.config().keys()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, redis_port: int) -> Iterator[Fleet]:
    """Return a fleet whose site is at its first revision; tests get copies."""
    with pytest.MonkeyPatch.context() as patch:
        fleet = new_fleet(tmp_path_factory.mktemp("finished"), redis_port)
        patch.setenv("STANDIN_DB_DIR", fleet.environ["STANDIN_DB_DIR"])
        make_precious(fleet)
        code, _, err = fleet.run()
        assert code == 0, err
    yield fleet
    fleet.close()


@pytest.fixture
def upgraded(fleet: Fleet, finished: Fleet) -> Fleet:
    """Return a copy of it, in maintenance flags of an operator's, whose next image has one patch and one app more."""
    for part in ("sites", "server"):
        shutil.copytree(finished.root / part, fleet.root / part, dirs_exist_ok=True, symlinks=True)
    fleet.canaries |= finished.canaries
    # The leases stay where they are: a claim that came from another lease store would have to lapse first.
    fleet.environ |= {**finished.canaries, "IMAGE_REV": NEW_REVISION}
    fleet.environ["COORDINATE_URL"] = finished.environ["COORDINATE_URL"]
    fleet.apps, fleet.patches = ["demo_app", NEW_APP], {"demo_app": ["p1", "p2", "p9"]}
    path = fleet.sites / "s1" / "site_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **FLAGS}))
    fleet.add()
    fleet.bench.sql("CREATE TABLE kept (name VARCHAR(10))")
    return fleet


@pytest.mark.parametrize("point", UPGRADE)
def test_a_leader_killed_in_an_upgrade_is_replaced(upgraded: Fleet, tmp_path: Path, point: str) -> None:
    """Point 13: the flags are what the operator had set; a table of the site's own is still there."""
    more = {"APPS": f"demo_app {NEW_APP}", "REBUILD_ASSETS_ON_BOOT": "1"}
    leader = leader_at(upgraded, tmp_path / "gate", point, **more)
    before, after = take_over(upgraded, leader, **more)
    judge(upgraded, before, after, NEW_REVISION, ["frappe", "demo_app", NEW_APP])
    config = upgraded.bench.config()
    assert {key: config.get(key) for key in FLAGS} == FLAGS
    assert "frappe_bootstrap_maintenance" not in config
    assert upgraded.bench.sql("SELECT COUNT(*) FROM kept")[0][0] == 0
    assert upgraded.bench.sql("SELECT COUNT(*) FROM `tabPatch Log` WHERE patch LIKE '%p9%'")[0][0] == 1
    assert upgraded.commands()["new-site"] == 0
