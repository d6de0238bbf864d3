"""Programs and plugins around the steps; status and plan; real processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap import settings, status, steps
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.waiting import Stop
from frappe_bootstrap.work import Work
from tests.frappe.conftest import LIMIT, Fleet
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = """
from pathlib import Path
from frappe_bootstrap.hookspecs import hookimpl
OUT = Path({out!r})
@hookimpl
def frappe_bootstrap_before_step(step, site, revision, token, check):
    check()
    with OUT.open("a") as file:
        print("plugin before", step, site, revision, token > 0, file=file)
@hookimpl
def frappe_bootstrap_after_step(step):
    with OUT.open("a") as file:
        print("plugin after", step, file=file)
    if step == {failing!r}:
        raise RuntimeError("the plugin does not like it")
"""


def program(folder: Path, name: str, script: str) -> str:
    """Return the path of a hook."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every name below a folder with its inode and time of change."""
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {name: (entry.st_ino, entry.st_mtime_ns) for name, entry in found.items()}


def test_hooks_run_around_a_step_under_its_lease(fleet: Fleet, tmp_path: Path) -> None:
    """The site, the revision, the token of the marker; no secret; what they print is logged and recorded."""
    hook = program(tmp_path, "hook", f"env > {tmp_path}/env.$BOOTSTRAP_STEP; echo said by the hook; pwd")
    order = program(tmp_path, "after", f"echo after $BOOTSTRAP_STEP >> {tmp_path}/order")
    given = {"PRE_MIGRATE_HOOK": hook, "POST_MIGRATE_HOOK": order, "POST_READY_HOOK": order}
    code, _, err = fleet.run("echo", "serving", **given)
    assert code == 0, err
    environ = dict(line.split("=", 1) for line in (tmp_path / "env.migrate").read_text().splitlines() if "=" in line)
    assert (environ["FRAPPE_SITE"], environ["BOOTSTRAP_REVISION"]) == ("s1", "registry/image:1")
    assert int(environ["BOOTSTRAP_TOKEN"]) == fleet.record("migrate")["token"]
    assert not [canary for canary in fleet.canaries.values() if canary in (tmp_path / "env.migrate").read_text()]
    assert "pre hook: said by the hook" in err
    assert f"pre hook: {fleet.benches[0]}" in err
    assert (tmp_path / "order").read_text() == "after migrate\nafter ready\n"
    assert fleet.run("echo", **given)[0] == 0
    assert (tmp_path / "order").read_text() == "after migrate\nafter ready\n"


def test_hooks_of_migrations_are_told_which_one_was_never_finished(fleet: Fleet, tmp_path: Path) -> None:
    """As the database says it when the hook runs: whoever saves a backup knows whether it is half migrated."""
    told = tmp_path / "told"
    script = f"echo $BOOTSTRAP_REVISION $BOOTSTRAP_STEP ${{BOOTSTRAP_MIGRATING-unset}}. >> {told}"
    hook = program(tmp_path, "hook", script)
    given = dict.fromkeys(("PRE_MIGRATE_HOOK", "POST_MIGRATE_HOOK", "PRE_ASSETS_HOOK"), hook)
    assert fleet.run()[0] == 0
    assert fleet.run(IMAGE_REV="2", STANDIN_FAIL="migrate:after_patches", **given)[0] == 76
    assert told.read_text().splitlines() == ["2 migrate .", "2 migrate 2.", "2 migrate 2."]
    told.unlink()
    assert fleet.run(IMAGE_REV="3", **given)[0] == 0
    assert told.read_text().splitlines() == ["3 migrate 2.", "3 migrate .", "3 assets unset."]


def test_a_hook_that_fails_before_a_step_leaves_everything_as_it_was(fleet: Fleet, tmp_path: Path) -> None:
    """The migration has not begun: no bench command, no maintenance, the marker and the last line say why."""
    assert fleet.run()[0] == 0
    before = (fleet.commands(), fleet.bench.config())
    hook = program(tmp_path, "hook", "echo the backup has failed; exit 3")
    code, out, err = fleet.run("echo", "serving", IMAGE_REV="2", PRE_MIGRATE_HOOK=hook)
    assert (code, out) == (76, "")
    assert "PRE_MIGRATE_HOOK ended with code 3" in err
    assert (fleet.commands(), fleet.bench.config()) == before
    record = fleet.record("migrate", "2")
    assert (record["state"], record["exit_code"], record["failures"]) == ("failed", 3, 3)
    assert "the backup has failed" in record["detail"]


def test_what_a_hook_has_changed_is_seen_by_its_step(fleet: Fleet, tmp_path: Path) -> None:
    """The look from before it does not count, although nobody else has held the lease since."""
    gate = Gate(tmp_path, "")
    wait = f"{tmp_path}/arrive.sh; while [ ! -e {tmp_path}/opened ]; do sleep 0.05; done"
    leader = fleet.start(PRE_MIGRATE_HOOK=program(tmp_path, "hook", wait))
    gate.wait()
    fleet.bench.sql("DELETE FROM tabUser WHERE name = 'Administrator'")
    gate.open()
    _, err = leader.communicate(timeout=LIMIT)
    assert (leader.returncode, fleet.commands()["migrate"]) == (81, 0), err


def test_a_hook_that_hangs_or_is_no_program_is_found_out(fleet: Fleet, tmp_path: Path) -> None:
    """HOOK_TIMEOUT ends it with all it started; a wrong path is said before anything is done."""
    hook = program(tmp_path, "hook", "sleep 600 & sleep 600")
    code, _, err = fleet.run(PRE_CONFIG_HOOK=hook, HOOK_TIMEOUT="0.3")
    assert code == 76, err
    assert "longer than 0.3 s" in err
    assert fleet.commands() == {}
    code, _, err = fleet.run(PRE_SITE_HOOK=str(tmp_path), POST_APPS_HOOK="no-such-program")
    assert code == 78
    assert "PRE_SITE_HOOK: " in err
    assert "POST_APPS_HOOK: " in err


@pytest.mark.parametrize("failing", ["", "site"])
def test_plugins_are_called_around_every_step(fleet: Fleet, tmp_path: Path, failing: str) -> None:
    """Found by their entry point; one that raises fails the step, as a program does."""
    info = tmp_path / "plugins" / "hooked-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hooked\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[frappe_bootstrap.hooks]\nhooked = hooked_plugin\n")
    text = PLUGIN.format(out=str(tmp_path / "told"), failing=failing)
    (tmp_path / "plugins" / "hooked_plugin.py").write_text(text)
    code, _, err = fleet.run(PYTHONPATH=str(tmp_path / "plugins"))
    told = (tmp_path / "told").read_text().splitlines()
    if failing:
        assert code == 76
        assert "the plugin does not like it" in err
        return
    assert code == 0, err
    steps = ("config", "site", "migrate", "apps", "assets", "ready")
    assert told == [
        line for step in steps for line in (f"plugin before {step} s1 registry/image:1 True", f"plugin after {step}")
    ]


def test_a_step_may_have_a_limit_of_its_own(environ: dict[str, str]) -> None:
    """Hazard 17: a hung migration is not renewed for ever; the others keep STEP_TIMEOUT."""
    chosen = settings.load({**environ, "STEP_TIMEOUT": "50", "MIGRATE_TIMEOUT": "2.5", "SITE_TIMEOUT": "7"})
    work = Work(chosen, Bench(chosen, Stop(), {}), lambda *_: None)
    limits = {step.name: step.timeout for step in steps.plan(work).steps}
    assert limits == {"config": 50, "site": 7, "migrate": 2.5, "apps": 50, "assets": 50, "ready": 50}


def test_status_and_plan_say_what_is_and_would_be_and_change_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """Hazards 38 and 39, pain 25: before, during and after a failed revision; not a file is touched."""
    assert fleet.run("--", "true")[0] == 0
    volume = snapshot(fleet.sites)
    code, out, err = fleet.run("plan")
    assert code == 0, err
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["nothing"] * 6
    code, out, _ = fleet.run("plan", IMAGE_REV="2", APPS="demo_app")
    assert code == 0
    assert "migrate  do: revision 2 is not recorded as migrated" in out
    assert "site     nothing to do: the site is healthy" in out
    assert fleet.run("status", "--wrong")[0] == 64
    assert snapshot(fleet.sites) == volume
    gate = Gate(tmp_path, "migrate:doctypes@frappe")
    leader = fleet.start(IMAGE_REV="2", **gate.environ)
    gate.wait()
    code, out, err = fleet.run("status", "--json", IMAGE_REV="2")
    assert code == 0, err
    (site,) = json.loads(out)
    assert (site["site"], site["state"], site["ready"]) == ("s1", "healthy", False)
    assert f"[{leader.pid}]" in site["leader"]
    migrate = next(step for step in site["steps"] if step["step"] == "migrate")
    assert migrate["state"] == "in progress"
    assert migrate["expected_seconds"] > 0
    leader.kill()
    leader.communicate(timeout=LIMIT)
    assert fleet.run(IMAGE_REV="2", STANDIN_FAIL="migrate:after_patches")[0] == 76
    code, out, _ = fleet.run("status", IMAGE_REV="2")
    assert code == 0
    assert "stand-in failure at migrate:after_patches" in out
    assert "failed 3 times" in out
    assert "nobody leads" in out
    code, out, _ = fleet.run("plan", IMAGE_REV="2")
    assert "migrate  refuse: budget spent" in out
    assert not [line for line in out.splitlines() if line.startswith("  apps ")]


def test_an_operator_repairs_adopts_and_opens_a_site_by_command(fleet: Fleet) -> None:
    """Point 13, pains 9 and 14: the commands that refusals name; a site that is not ours to touch is not touched."""
    assert fleet.run()[0] == 0
    assert fleet.run("adopt", "s1")[0] == 0
    config = {**fleet.bench.config(), "maintenance_mode": 1, "pause_scheduler": 1}
    config["frappe_bootstrap_maintenance"] = {"before": {}, "token": 1}
    (fleet.sites / "s1/site_config.json").write_text(json.dumps(config))
    code, out, err = fleet.run("repair", "--maintenance", "s1")
    assert code == 0, err
    assert "as they were before the upgrade" in out
    assert "maintenance_mode" not in fleet.bench.config()
    assert "nothing to restore" in fleet.run("repair", "--maintenance", "s1")[1]
    code, out, err = fleet.run("repair", "s1")
    assert (code, out) == (0, "site s1 is healthy\n"), err
    assert fleet.run("repair", "other")[0] == 78
    assert fleet.run("adopt")[0] == fleet.run("repair", "--force", "s1")[0] == 64


def test_plan_names_what_forbids_a_new_site(fleet: Fleet) -> None:
    """From root's look at the server, without creating anything: no folder, no database, no record."""
    fleet.sites.mkdir()
    code, out, err = fleet.run("plan")
    assert code == 0, err
    assert "site     do: new-site with database" in out
    for change, words in (({"SKIP_INIT": "1"}, "SKIP_INIT=1"), ({"DB_ROOT_PASS": ""}, "DB_ROOT_PASS and ADMIN_PASS")):
        assert words in fleet.run("plan", **change)[1]
    assert [path.name for path in fleet.sites.iterdir()] == []
    (fleet.root / "server" / "down").touch()
    assert "Can't connect" in fleet.run("plan")[1]


def test_progress_is_read_from_what_the_command_prints() -> None:
    """The last percentage counts; more than a hundred is none."""
    assert status.percent("Updating DocTypes for frappe : [=   ] 12%\nUpdating : [==  ] 45 %") == 45
    assert status.percent("done") == status.percent("200%") == -1
