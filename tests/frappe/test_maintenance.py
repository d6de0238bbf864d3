"""Maintenance around a migration: never without its journal, restored exactly when that is right; jobs are drained."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from coordinate.errors import StepFailed
from frappe_bootstrap import drain, settings, upgrade
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.waiting import Stop
from frappe_bootstrap.work import Work
from tests.frappe.conftest import LIMIT, Fleet
from tests.frappe.test_unwilling import read_until
from tests.servers import redis_server
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from coordinate.steps import StepContext

KEYS = ("maintenance_mode", "pause_scheduler", "frappe_bootstrap_maintenance")
NEXT = {"IMAGE_REV": "2"}


def flags(fleet: Fleet) -> dict[str, Any]:
    """Return what the site's config says about maintenance."""
    return {key: value for key, value in fleet.bench.config().items() if key in KEYS}


def set_config(fleet: Fleet, **values: object) -> None:
    """Set keys, as an operator."""
    path = fleet.sites / "s1" / "site_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def closed(fleet: Fleet) -> bool:
    """Return whether the site is in maintenance of ours."""
    found = flags(fleet)
    return (found.get("maintenance_mode"), found.get("pause_scheduler")) == (1, 1) and KEYS[2] in found


def paused(fleet: Fleet, folder: Path, point: str, **environ: str) -> tuple[subprocess.Popen[str], Gate]:
    """Return a replica that stands at a point of its bench command, and the gate."""
    folder.mkdir()
    gate = Gate(folder, point)
    child = fleet.start("echo", "serving", **NEXT, **gate.environ, **environ)
    gate.wait()
    return child, gate


@pytest.mark.parametrize("before", [{}, {"maintenance_mode": 1}, {"maintenance_mode": 0, "pause_scheduler": 1}])
def test_a_site_is_closed_while_it_is_migrated_and_as_before_afterwards(
    fleet: Fleet, tmp_path: Path, before: dict[str, int]
) -> None:
    """Hazard 11, point 13: what an operator has set stays set; a new site is not closed at all."""
    assert fleet.run()[0] == 0
    assert flags(fleet) == {}
    set_config(fleet, **before)
    child, gate = paused(fleet, tmp_path / "gate", "migrate:locked")
    assert closed(fleet)
    gate.open()
    assert child.wait(LIMIT) == 0
    assert flags(fleet) == before


@pytest.mark.parametrize("point", ["migrate:locked", "migrate:end"])
def test_a_killed_leader_leaves_the_journal_and_its_successor_restores(
    fleet: Fleet, tmp_path: Path, point: str
) -> None:
    """Point 13: kill -9, takeover, by the next revision as well."""
    assert fleet.run()[0] == 0
    set_config(fleet, pause_scheduler=0)
    child, _ = paused(fleet, tmp_path / "gate", point)
    child.kill()
    child.wait(LIMIT)
    assert closed(fleet)
    code, _, err = fleet.run(IMAGE_REV="3")
    assert code == 0, err
    assert flags(fleet) == {"pause_scheduler": 0}


def test_after_the_final_failure_of_migrate_the_site_stays_closed(fleet: Fleet) -> None:
    """Point 13: nobody serves a half migrated site; the next revision that succeeds opens it."""
    assert fleet.run()[0] == 0
    assert fleet.run(**NEXT, STANDIN_FAIL="migrate:after_patches")[0] == 76
    assert closed(fleet)
    assert fleet.run(IMAGE_REV="3")[0] == 0
    assert flags(fleet) == {}


def test_a_stop_before_the_first_effect_opens_the_site_again(fleet: Fleet) -> None:
    """A clean abort, here while the web processes' configuration runs out; killed there, the next one finishes."""
    assert fleet.run()[0] == 0
    for stop in (signal.SIGTERM, signal.SIGKILL):
        child = fleet.start("echo", "serving", **NEXT, MAINTENANCE_WAIT_SECS="600")
        read_until(child, "in maintenance")
        assert closed(fleet)
        child.send_signal(stop)
        child.communicate(timeout=LIMIT)
        assert closed(fleet) == (stop == signal.SIGKILL)
    before = fleet.commands()
    child = fleet.start("echo", "serving", **NEXT, MAINTENANCE_WAIT_SECS="600")
    read_until(child, "in maintenance")
    child.terminate()
    child.communicate(timeout=LIMIT)
    assert flags(fleet) == {}
    assert fleet.commands() == before


def test_a_site_closed_by_a_dead_leader_is_opened_by_the_revision_that_it_still_is_at(fleet: Fleet) -> None:
    """Point 13: rolled back before the first effect, the old image serves it; nothing else is done."""
    assert fleet.run()[0] == 0
    child = fleet.start("echo", "serving", **NEXT, MAINTENANCE_WAIT_SECS="600")
    read_until(child, "in maintenance")
    child.kill()
    child.communicate(timeout=LIMIT)
    assert closed(fleet)
    before = fleet.commands()
    code, _, err = fleet.run()
    assert (code, "opened again" in err) == (0, True), err
    assert (flags(fleet), fleet.commands()) == ({}, before)
    assert "opened again" not in fleet.run()[2]


def test_what_upgrade_mode_says(fleet: Fleet) -> None:
    """Refuse: 86, nothing has begun; live: the flags are never touched."""
    assert fleet.run(UPGRADE_MODE="refuse")[0] == 0
    code, _, err = fleet.run(**NEXT, UPGRADE_MODE="refuse")
    assert (code, "UPGRADE_MODE=refuse" in err) == (86, True)
    assert (flags(fleet), fleet.commands()["migrate"]) == ({}, 2)
    code, _, err = fleet.run(IMAGE_REV="3", UPGRADE_MODE="live", MAINTENANCE_WAIT_SECS="600")
    assert (code, "maintenance" in err) == (0, False)


def test_an_app_is_installed_behind_closed_doors(fleet: Fleet, tmp_path: Path) -> None:
    """Point 12, hazards 8 and 9: after the migration, in maintenance, not said before; its successor opens the site."""
    assert fleet.run(APPS="")[0] == 0
    child, _ = paused(fleet, tmp_path / "gate", "install-app:after_install")
    assert closed(fleet)
    assert fleet.record("migrate", "2")["state"] == "done"
    assert not (fleet.sites / ".apps_installed_2").exists()
    child.kill()
    child.wait(LIMIT)
    code, _, err = fleet.run(**NEXT)
    assert code == 0, err
    assert flags(fleet) == {}
    assert fleet.bench.runs_of("demo_app:after_install") == 1


def test_an_app_that_the_image_lacks_is_no_site_to_migrate(fleet: Fleet) -> None:
    """The apps of the site are the database's; nothing is begun, nothing is closed."""
    assert fleet.run()[0] == 0
    with contextlib.closing(fleet.bench.connect_site()) as connection, connection.cursor() as cursor:
        query = "UPDATE `tabDefaultValue` SET defvalue = %s WHERE defkey = %s"
        cursor.execute(query, (json.dumps(["frappe", "demo_app", "stranger"]), "installed_apps"))
    before = fleet.commands()
    code, _, err = fleet.run(**NEXT)
    assert (code, "apps that this image lacks: stranger" in err) == (81, True), err
    assert (fleet.commands(), flags(fleet)) == (before, {})


@pytest.mark.parametrize(("next_one", "code"), [("2", 76), ("3", 83)])
def test_what_a_failed_upgrade_has_noted_is_forgotten_once_a_backup_is_restored_and_served(
    fleet: Fleet, jobs: redis.Redis, next_one: str, code: int
) -> None:
    """Else the next attempt, which fails in its hook or undrained, would keep the restored revision unready."""
    assert fleet.run()[0] == 0
    shutil.copytree(fleet.root / "server", fleet.root / "backup")
    assert fleet.run(**NEXT, STANDIN_FAIL="migrate:after_patches")[0] == 76
    assert fleet.record("migrate", "2")["notes"]["changed"] == "1"
    shutil.rmtree(fleet.root / "server")
    shutil.copytree(fleet.root / "backup", fleet.root / "server")
    assert fleet.run()[0] == 0
    assert flags(fleet) == {}
    assert fleet.run("retry", "s1", **NEXT)[0] == 0
    jobs.zadd("rq:wip:bench:long", {"s1::r": time.time() + 100})
    hook = fleet.root / "hook"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    failing = {"PRE_MIGRATE_HOOK": str(hook)} if code == 76 else {"REDIS_QUEUE_URL": url_of(jobs)}
    found, _, err = fleet.run(**failing, IMAGE_REV=next_one, DRAIN_TIMEOUT="0.2")
    assert (found, flags(fleet)) == (code, {}), err
    left = fleet.record("migrate", next_one)["notes"]
    assert not left.get("changed")
    assert not left.get("maintenance")


def test_an_attempt_that_opens_the_site_again_has_changed_nothing_whatever_was_noted_before(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal, which is of this maintenance, knows better than a note that was carried on."""
    chosen = settings.load({**environ, "MAINTENANCE_WAIT_SECS": "0"})
    config = chosen.sites / chosen.site / "site_config.json"
    config.parent.mkdir()
    config.write_text("{}")
    notes = {"changed": "1"}
    context = SimpleNamespace(
        lease=SimpleNamespace(token=7),
        revision="2",
        record=SimpleNamespace(step="apps"),
        check=lambda: None,
        note=lambda **texts: notes.update(texts),
    )

    def undrained(*_: object) -> None:
        assert notes["maintenance"]
        message = "jobs are running"
        raise StepFailed(message)

    monkeypatch.setattr(upgrade, "drain", undrained)
    with pytest.raises(StepFailed):
        upgrade.close(Work(chosen, Bench(chosen, Stop(), {}), lambda *_: None), cast("StepContext", context))
    assert json.loads(config.read_text()) == {}
    assert notes == {"changed": "", "maintenance": ""}


# Jobs


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """Run a Redis server for queues."""
    with redis_server(tmp_path_factory.mktemp("queue")) as server, server.client() as client:
        yield client


@pytest.fixture
def jobs(queue: redis.Redis) -> redis.Redis:
    """Return a queue's server with one worker, and jobs of a site whose name begins like ours."""
    queue.flushall()
    queue.sadd("rq:queues", "rq:queue:bench:short", "rq:queue:bench:long")
    queue.sadd("rq:workers", "rq:worker:w1", "rq:worker:gone")
    queue.set("rq:worker:w1", "")
    queue.rpush("rq:queue:bench:short", "s12::a", "s12::b")
    queue.zadd("rq:wip:bench:long", {"s12::c": time.time() + 100, "s1::expired": time.time() - 10})
    return queue


def url_of(client: redis.Redis) -> str:
    """Return the server's URL."""
    where = client.connection_pool.connection_kwargs
    return f"redis://{where['host']}:{where['port']}"


def test_jobs_are_those_of_the_very_site_queued_or_running(jobs: redis.Redis) -> None:
    """Point 7: not of one whose name only begins so, not those past their time limit; workers are those that live."""
    assert drain.look(url_of(jobs), "s1") == (1, [], [])
    jobs.rpush("rq:queue:bench:long", "s1::q")
    jobs.zadd("rq:wip:bench:short", {"s1::r:execution": time.time() + 100, "s1::endless": -1})
    assert drain.look(url_of(jobs), "s1") == (1, ["s1::q"], ["s1::r:execution", "s1::endless"])


def test_a_migration_waits_for_the_jobs_of_its_site(fleet: Fleet, jobs: redis.Redis) -> None:
    """Points 7 and 13: closed first, then drained; not in time: opened again, nothing begun; no worker: said."""
    assert fleet.run()[0] == 0
    on_queue = {**NEXT, "REDIS_QUEUE_URL": url_of(jobs)}
    jobs.zadd("rq:wip:bench:long", {"s1::r": time.time() + 100})
    before = fleet.commands()
    child = fleet.start("echo", "serving", **on_queue, DRAIN_TIMEOUT="0.2")
    _, err = child.communicate(timeout=LIMIT)
    assert (child.returncode, "1 running, 0 queued, such as s1::r" in err) == (83, True), err
    assert (fleet.commands(), flags(fleet)) == (before, {})
    fleet.reset("migrate", "2")
    child = fleet.start("echo", "serving", **on_queue)
    read_until(child, "waiting for background jobs")
    assert closed(fleet)
    jobs.zrem("rq:wip:bench:long", "s1::r")
    _, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 0, err
    jobs.delete("rq:worker:w1")
    jobs.rpush("rq:queue:bench:long", "s1::q")
    code, _, err = fleet.run(**{**on_queue, "IMAGE_REV": "3"})
    assert (code, "no worker is registered: 1 jobs" in err) == (0, True), err
