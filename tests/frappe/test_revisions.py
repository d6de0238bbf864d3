"""Which image may act on which data: order by patches, the record in the database, names that are used again."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from coordinate.testing import eventually
from frappe_bootstrap import record, revisions
from frappe_bootstrap.revisions import Image, Order
from tests.frappe.conftest import LIMIT, Fleet
from tests.frappe.test_unwilling import read_until
from tests.standin.fleet import Gate, make_bench

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW, NEWEST, OTHER = ("p1", "p2"), ("p1", "p2", "p3"), ("p1", "p2", "p3", "p4"), ("p1", "p2", "p9")


def use_image(fleet: Fleet, patches: tuple[str, ...], *apps: str, doctype: str = "") -> Fleet:
    """Let the next replica have an image with those patches of its app, with more apps, with another document type."""
    path = fleet.root / f"bench-{len(fleet.running)}"
    shipped, brought = {"demo_app": patches}, ["demo_app", *apps]
    fleet.benches.append(make_bench.make_bench(path, brought, apps_txt=False, sites=fleet.sites, patches=shipped))
    if doctype:
        (described,) = (path / "apps/demo_app").rglob("demo_note.json")
        described.write_text(json.dumps({**json.loads(described.read_text()), "description": doctype}))
    return fleet


def save(fleet: Fleet) -> None:
    """Back up the database server."""
    shutil.copytree(fleet.root / "server", fleet.root / "backup")


def restore(fleet: Fleet) -> None:
    """Put the backup back."""
    shutil.rmtree(fleet.root / "server")
    shutil.copytree(fleet.root / "backup", fleet.root / "server")


def rows(fleet: Fleet) -> dict[str, Any]:
    """Return our record in the site's database."""
    found = fleet.bench.sql("SELECT name, value FROM __frappe_bootstrap")
    return {name: json.loads(value) for name, value in found if value}


def image(app: str, version: str = "15.1", *patches: str) -> Image:
    """Return an image with one app."""
    return Image("s", "a", {app: version}, {app: list(patches)})


@pytest.mark.parametrize(
    ("ours", "order"),
    [
        (image("erp", "15.9", "a", "b"), Order.SAME),
        (image("erp", "15.1", "b", "a", "c"), Order.NEWER),
        (image("erp", "15.1", "a"), Order.OLDER),
        (image("erp", "15.1", "a", "c"), Order.DIVERGED),
        (image("erp", "16.0", "c"), Order.NEWER),
        (image("erp", "14.9", "a", "b", "c"), Order.OLDER),
        (image("erp", "", "a", "c", "b"), Order.NEWER),
        (image("other", "15.1", "a", "b"), Order.OLDER),
    ],
)
def test_patches_order_images_within_a_major_version(ours: Image, order: Order) -> None:
    """Point 9: an app that is not there makes an image older."""
    assert revisions.compare(ours, {"erp": "15.1.3"}, {"erp": ["a", "b"]}).order is order


def test_apps_that_point_both_ways_are_not_comparable() -> None:
    """One app is newer, another one older: both lists are told."""
    ours = Image("s", "a", {"x": "1", "y": "1"}, {"x": ["a", "b"], "y": []})
    found = revisions.compare(ours, {"x": "1", "y": "1"}, {"x": ["a"], "y": ["c"]})
    assert found == (Order.DIVERGED, {"x": ["b"]}, {"y": ["c"]})


def test_a_patch_that_runs_again_is_the_same_and_a_long_one_stays_short(plain_bench: Path) -> None:
    """A date behind a patch is how the framework runs it once more; the record stays small."""
    path = plain_bench / "apps/erp/erp/patches.txt"
    path.write_text(f"[pre_model_sync]\nerp.patches.v1.a #2024-01-01\n# words\n\nexecute:{'x' * 300}\n")
    patches = revisions.describe(plain_bench).patches["erp"]
    assert patches[0] == ".v1.a"
    assert len(patches[1]) == 64


def test_an_older_image_neither_serves_nor_migrates(fleet: Fleet) -> None:
    """Hazard 7, points 9 and 14: its own records say done, the database knows better; an operator may insist."""
    assert use_image(fleet, OLD).run(IMAGE_REV="a")[0] == 0
    assert use_image(fleet, NEW).run(IMAGE_REV="b")[0] == 0
    assert rows(fleet)["revision"]["revision"] == "b"
    assert "migrating" not in rows(fleet)
    before = fleet.commands()
    for revision in ("a", "never-seen"):
        code, out, err = use_image(fleet, OLD).run("echo", "serving", IMAGE_REV=revision)
        assert (code, out) == (84, ""), err
        assert "is older" in err
        assert "demo_app: .p3" in err
        code, out, err = use_image(fleet, OLD).run("echo", "serving", IMAGE_REV=revision, ALLOW_DOWNGRADE="1")
        assert (code, out) == (0, "serving\n"), err
    assert fleet.commands() == before


@pytest.mark.parametrize("migrates", ["leader", "0"])
def test_an_older_image_that_is_tolerated_closes_nothing_when_its_turn_comes_after_a_migration(
    fleet: Fleet, migrates: str
) -> None:
    """It stood in line when the database was not ahead yet: neither its hook runs nor is the site closed for it."""
    assert use_image(fleet, OLD, doctype="first").run(IMAGE_REV="a")[0] == 0
    go, ran = fleet.root / "go", fleet.root / "ran"
    hooks = {"wait": f"until [ -e {go} ]; do sleep 0.05; done", "save": f"touch {ran}"}
    for name, script in hooks.items():
        (fleet.root / name).write_text(f"#!/bin/sh\n{script}\n")
        (fleet.root / name).chmod(0o755)
    newer = use_image(fleet, NEW).start(IMAGE_REV="b", PRE_MIGRATE_HOOK=str(fleet.root / "wait"))
    eventually(lambda: fleet.record("migrate", "b").get("state") == "in progress", within=60, what="the hook")
    late = {"IMAGE_REV": "c", "ALLOW_DOWNGRADE": "1", "PRE_MIGRATE_HOOK": str(fleet.root / "save")}
    late |= {"RUN_MIGRATIONS_ON_BOOT": migrates, "APPS": "demo_app second_app"}
    older = use_image(fleet, OLD, "second_app").start("echo", **late)
    read_until(older, "waiting: last known leader")
    go.touch()
    assert newer.wait(LIMIT) == 0
    before = fleet.commands()
    _, err = older.communicate(timeout=LIMIT)
    assert (older.returncode, "never migrated backwards" in err, ran.exists()) == (84, True, False), err
    assert "in maintenance" not in err
    step = "migrate" if migrates == "leader" else "apps"
    assert not {"changed", "maintenance"} & set(fleet.record(step, "c")["notes"])
    assert fleet.commands() == before


def test_an_image_that_cannot_be_compared_is_refused_with_both_lists(fleet: Fleet) -> None:
    """Point 9: until somebody decides."""
    assert use_image(fleet, NEW).run()[0] == 0
    code, _, err = use_image(fleet, OTHER).run(IMAGE_REV="2")
    assert code == 84, err
    assert "Only there: demo_app: .p3. Only in this image: demo_app: .p9" in err
    assert use_image(fleet, OTHER).run(IMAGE_REV="2", ALLOW_DOWNGRADE="1")[0] == 0


def test_who_restarts_with_the_older_image_during_a_migration_refuses(fleet: Fleet, tmp_path: Path) -> None:
    """Point 14: `migrating N` is there before the first effect, and after a kill -9; a newer one takes over.

    Hazards 18 and 22: whatever its revision, and however long a step takes, it does not begin before.
    """
    assert use_image(fleet, OLD).run(IMAGE_REV="a")[0] == 0
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:begin")
    leader = use_image(fleet, NEW).start(**gate.environ, IMAGE_REV="b")
    gate.wait()
    assert rows(fleet)["migrating"]["revision"] == "b"
    code, _, err = use_image(fleet, OLD).run("echo", "serving", IMAGE_REV="a")
    assert (code, "is being migrated to revision b" in err) == (84, True), err
    before = fleet.commands()
    newest = use_image(fleet, NEWEST).start("echo", "serving", IMAGE_REV="c", STEP_STALE_SECS="0.01")
    read_until(newest, "waiting: last known leader")
    assert use_image(fleet, OLD).run("echo", "serving", IMAGE_REV="a")[0] == 84
    assert fleet.commands() == before
    leader.kill()
    leader.communicate(timeout=LIMIT)
    _, err = newest.communicate(timeout=LIMIT)
    assert newest.returncode == 0, err
    assert (rows(fleet)["revision"]["revision"], "migrating" in rows(fleet)) == ("c", False)


def test_a_name_that_is_used_for_another_schema_is_migrated_again_or_refused(fleet: Fleet) -> None:
    """Hazard 6, `latest`: REVISION_REUSE decides; an older image of that name does not get through."""
    assert use_image(fleet, OLD).run(IMAGE_REV="latest")[0] == 0
    before = fleet.commands()
    code, _, err = use_image(fleet, NEW).run(IMAGE_REV="latest", REVISION_REUSE="refuse")
    assert (code, "REVISION_REUSE=refuse" in err, fleet.commands()) == (85, True, before), err
    replicas = [use_image(fleet, NEW).start("echo", "serving", IMAGE_REV="latest") for _ in range(2)]
    assert [child.communicate(timeout=LIMIT)[0] for child in replicas] == ["serving\n"] * 2
    assert fleet.commands() - before == {"migrate": 1}
    assert use_image(fleet, OLD).run(IMAGE_REV="latest")[0] == 84


def test_a_restored_database_is_migrated_again_although_the_records_say_done(fleet: Fleet) -> None:
    """Hazard 6, point 10: the backup carries the record, the volume's markers do not count against it."""
    assert use_image(fleet, OLD).run(IMAGE_REV="a")[0] == 0
    save(fleet)
    assert use_image(fleet, NEW).run(IMAGE_REV="b")[0] == 0
    restore(fleet)
    assert rows(fleet)["revision"]["revision"] == "a"
    before = fleet.commands()
    code, out, err = use_image(fleet, NEW).run("echo", "serving", IMAGE_REV="b")
    assert (code, out) == (0, "serving\n"), err
    assert "recorded as done, but the database says otherwise" in err
    assert fleet.commands() - before == {"migrate": 1}
    assert fleet.bench.runs_of("patch:demo_app.patches.p3") == 1
    assert rows(fleet)["revision"]["revision"] == "b"


def failing_hook(fleet: Fleet) -> str:
    """Return a program that fails."""
    path = fleet.root / "hook.sh"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("cleared", [False, True])
def test_a_later_step_that_was_given_up_does_not_hide_that_a_backup_was_restored(fleet: Fleet, cleared: bool) -> None:  # noqa: FBT001
    """Neither is it given up for ever, nor, once cleared, is new code served on the data of the backup."""
    assert use_image(fleet, OLD).run(IMAGE_REV="a")[0] == 0
    save(fleet)
    assert use_image(fleet, NEW).run(IMAGE_REV="b", PRE_ASSETS_HOOK=failing_hook(fleet))[0] == 76
    assert (fleet.record("migrate", "b")["state"], fleet.record("assets", "b")["state"]) == ("done", "failed")
    code, out, _ = use_image(fleet, NEW).run("plan", IMAGE_REV="b")
    assert (code, "assets   refuse: budget spent" in out) == (0, True), out
    restore(fleet)
    if cleared:
        assert use_image(fleet, NEW).run("retry", "s1", IMAGE_REV="b")[0] == 0
    out = use_image(fleet, NEW).run("plan", IMAGE_REV="b")[1]
    assert "migrate  do: recorded as done, but the database says otherwise" in out
    assert "refuse" not in out
    before = fleet.commands()
    for _ in range(2):
        code, out, err = use_image(fleet, NEW).run("echo", "serving", IMAGE_REV="b")
        assert (code, out) == (0, "serving\n"), err
        assert fleet.commands() - before == {"migrate": 1}
    assert fleet.bench.runs_of("patch:demo_app.patches.p3") == 1
    assert rows(fleet)["revision"]["revision"] == "b"


def test_a_given_up_step_does_not_hide_it_where_there_are_several_sites(fleet: Fleet) -> None:
    """Each is looked at before it is given up for good; without a backup it stays given up."""
    two = {"SITE": "", "SITES": "s1 s2"}
    assert use_image(fleet, OLD).run(**two, IMAGE_REV="a")[0] == 0
    save(fleet)
    assert use_image(fleet, NEW).run(**two, IMAGE_REV="b", POST_APPS_HOOK=failing_hook(fleet))[0] == 76
    before = fleet.commands()
    code, _, err = use_image(fleet, NEW).run(**two, IMAGE_REV="b")
    assert (code, fleet.commands() - before) == (76, {}), err
    restore(fleet)
    code, _, err = use_image(fleet, NEW).run(**two, IMAGE_REV="b")
    assert (code, fleet.commands() - before) == (0, {"migrate": 2}), err
    assert rows(fleet)["revision"]["revision"] == "b"


def test_failures_of_another_image_of_that_name_give_none_of_several_sites_up(fleet: Fleet) -> None:
    """As for a lone site: the budget is the schema's, and an operator who has mended the image does not wait."""
    two = {"SITE": "", "SITES": "s1 s2"}
    assert use_image(fleet, OLD).run(**two, IMAGE_REV="a")[0] == 0
    assert use_image(fleet, NEW).run(**two, IMAGE_REV="b", STANDIN_FAIL="migrate:after_patches")[0] == 76
    code, _, err = use_image(fleet, NEWEST).run(**two, IMAGE_REV="b")
    assert code == 0, err


def test_one_of_several_sites_that_was_restored_is_migrated_alone(fleet: Fleet) -> None:
    """The others are left alone; what all share is said again at the end."""
    two = {"SITE": "", "SITES": "s1 s2"}
    assert use_image(fleet, NEW).run(**two)[0] == 0
    with contextlib.closing(fleet.bench.connect_site()) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM __frappe_bootstrap WHERE name = 'revision'")
    before = fleet.commands()
    code, _, err = use_image(fleet, NEW).run(**two)
    assert code == 0, err
    assert fleet.commands() - before == {"migrate": 1}
    assert (fleet.sites / ".ready_registry%2Fimage:1").exists()
    assert rows(fleet)["revision"]["revision"] == "registry/image:1"


def test_an_image_whose_app_was_dropped_since_is_older_although_its_patches_are_equal(fleet: Fleet) -> None:
    """It would take the record back and install the app again; an operator may insist to be served, and no more."""
    two = {"IMAGE_REV": "a", "APPS": "demo_app second_app"}
    assert use_image(fleet, OLD, "second_app").run(**two)[0] == 0
    fleet.bench.ok("--site", "s1", "uninstall-app", "second_app", "--yes", "--no-backup")
    assert use_image(fleet, OLD).run(IMAGE_REV="b")[0] == 0
    before = fleet.commands()
    code, out, err = use_image(fleet, OLD, "second_app").run("echo", "serving", **two)
    assert (code, out) == (84, ""), err
    assert "is older than that: the database was at it before" in err
    code, out, err = use_image(fleet, OLD, "second_app").run("echo", "serving", **two, ALLOW_DOWNGRADE="1")
    assert (code, out) == (0, "serving\n"), err
    assert fleet.commands() == before
    assert fleet.bench.installed() == ["frappe", "demo_app"]
    assert use_image(fleet, OLD).run("echo", IMAGE_REV="b")[0] == 0
    # The same code under a new name is a decision to bring it next.
    assert use_image(fleet, OLD, "second_app").run(**{**two, "IMAGE_REV": "c"})[0] == 0
    assert fleet.bench.installed() == ["frappe", "demo_app", "second_app"]
    assert use_image(fleet, OLD).run(IMAGE_REV="b")[0] == 84


def test_an_image_with_an_earlier_document_type_is_older_also_while_another_one_is_brought(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Each that was there is left behind, whether its migration ended or not; the present one goes on as ever."""
    kinds = {"a": "first", "b": "second", "c": "third"}
    for name in ("a", "b"):
        assert use_image(fleet, OLD, doctype=kinds[name]).run(IMAGE_REV=name)[0] == 0
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:begin")
    leader = use_image(fleet, OLD, doctype=kinds["c"]).start(**gate.environ, IMAGE_REV="c")
    gate.wait()
    for name in ("a", "b"):
        code, _, err = use_image(fleet, OLD, doctype=kinds[name]).run("echo", IMAGE_REV=name)
        assert (code, "is being migrated to revision c" in err) == (84, True), err
    leader.kill()
    leader.communicate(timeout=LIMIT)
    before = fleet.commands()
    assert use_image(fleet, OLD, doctype="fourth").run(IMAGE_REV="d")[0] == 0
    assert fleet.commands() - before == {"migrate": 1}
    for name, doctype in kinds.items():
        code, _, err = use_image(fleet, OLD, doctype=doctype).run("echo", IMAGE_REV=name)
        assert (code, "the database was at it before" in err) == (84, True), err
    assert use_image(fleet, OLD, doctype="fourth").run("echo", IMAGE_REV="d")[0] == 0


def test_the_code_from_before_a_failed_upgrade_may_be_brought_next_under_a_new_name_only(fleet: Fleet) -> None:
    """The way back without a backup; under each name that the database has been at it is older, as ever."""
    for name in ("a", "b"):
        assert use_image(fleet, OLD, doctype="first").run(IMAGE_REV=name)[0] == 0
    failing = {"IMAGE_REV": "c", "STANDIN_FAIL": "migrate:after_patches"}
    assert use_image(fleet, OLD, doctype="second").run(**failing)[0] == 76
    for name in ("a", "b"):
        code, _, err = use_image(fleet, OLD, doctype="first").run("echo", IMAGE_REV=name)
        assert (code, "is older than that" in err) == (84, True), err
    code, _, err = use_image(fleet, OLD, doctype="first").run("echo", IMAGE_REV="d")
    assert code == 0, err
    assert (rows(fleet)["revision"]["revision"], "migrating" in rows(fleet)) == ("d", False)
    assert use_image(fleet, OLD, doctype="second").run("echo", IMAGE_REV="c")[0] == 84


def test_a_record_of_an_earlier_version_has_no_list_and_begins_one(fleet: Fleet) -> None:
    """It is read as before; what it says is left behind by the next migration."""
    assert use_image(fleet, OLD, doctype="first").run(IMAGE_REV="a")[0] == 0
    known = rows(fleet)["revision"]
    assert known.pop("earlier") == []
    with contextlib.closing(fleet.bench.connect_site()) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE __frappe_bootstrap SET value = %s WHERE name = 'revision'", (json.dumps(known),))
    assert use_image(fleet, OLD, doctype="second").run(IMAGE_REV="b")[0] == 0
    assert rows(fleet)["revision"]["earlier"] == [revisions.mark("a", known["schema"])]
    assert use_image(fleet, OLD, doctype="first").run(IMAGE_REV="a")[0] == 84


def test_what_was_left_behind_is_listed_once_the_oldest_first_and_not_without_end() -> None:
    """A revision that is brought again is not behind; a name with another schema is another mark."""
    one, two, three = (revisions.mark("r", schema) for schema in ("1", "2", "3"))
    reached = record.Revision("r", "2", earlier=[one])
    found = record.SiteRecord(reached, record.Migrating("r", "3", earlier=[one, two]))
    assert revisions.left_behind(found, revisions.mark("r", "4")) == [one, two, three]
    assert revisions.left_behind(found, one) == [two, three]
    assert revisions.left_behind(record.SiteRecord(), one) == []
    many = record.Revision("r", "2", earlier=[f"{number:016x}" for number in range(5000)])
    kept = revisions.left_behind(record.SiteRecord(many), one)
    assert kept[-2:] == [f"{4999:016x}", two]
    assert len(json.dumps(kept)) < 6000
