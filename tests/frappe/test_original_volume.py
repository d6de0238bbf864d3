"""A volume of the original image is taken over unattended, and can go back to it; its files are as it knows them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap import volume
from tests.frappe.conftest import Fleet, done_steps
from tests.frappe.original import Original
from tests.frappe.test_assets import bake
from tests.frappe.test_creation import creation

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("migrated", "apps_installed", "assets_built", "ready")


@pytest.fixture
def original(fleet: Fleet) -> Original:
    """Return a container of the original image, whose volume is at v1, with what an operator has put there."""
    image = Original(fleet)
    image.boot("v1")
    path = fleet.sites / "s1" / "site_config.json"
    own = {"encryption_key": "of-the-operator", "mail_server": "mail", "pause_scheduler": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    fleet.bench.sql("CREATE TABLE kept (name VARCHAR(10))")
    return image


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_volume_of_the_original_image_is_upgraded_and_goes_back(fleet: Fleet, original: Original) -> None:
    """Point 20, hazards 5, 6 and 20: there, back, forward again; the site is the same one all the time."""
    before, built = fleet.bench.config(), names(fleet.sites / "assets")
    baked = {"BAKED_ASSETS": str(bake(fleet, "baked")), "DB_NAME": "shop"}
    assert fleet.commands() == {"set-config": 5, "new-site": 1, "use": 1, "install-app": 1, "migrate": 1, "build": 1}
    # There, by several at once.
    replicas = [fleet.start("echo", "serving", IMAGE_REV="v2", **baked) for _ in range(2)]
    results = [(child.communicate(timeout=120), child.returncode) for child in replicas]
    assert [(out, code) for (out, _), code in results] == [("serving\n", 0)] * 2, results
    assert len([step for (_, err), _ in results for step in done_steps(err)]) == 6
    assert (fleet.commands()["new-site"], fleet.commands()["migrate"], fleet.commands()["build"]) == (1, 2, 1)
    assert fleet.bench.config() == before
    assert creation(fleet).done
    assert os.readlink(fleet.sites / "assets") == baked["BAKED_ASSETS"]  # noqa: PTH115 -- the text of the link
    assert all(original.marker(kind, "v1").exists() and original.marker(kind, "v2").exists() for kind in KINDS)
    # Back: its own assets are there again, it believes its markers, and runs nothing but its five set-config.
    code, out, err = fleet.run("release-volume", IMAGE_REV="v2", **baked)
    assert (code, "is the folder again" in out) == (0, True), err
    assert names(fleet.sites / "assets") == built
    commands = fleet.commands()
    original.boot("v1")
    assert fleet.commands() - commands == {"set-config": 5}
    # A later image of the original migrates what we have left, and builds.
    original.boot("v3")
    assert (fleet.commands() - commands)["new-site"] == 0
    assert fleet.bench.installed() == ["frappe", "demo_app"]
    # Forward again.
    code, out, err = fleet.run("echo", "serving", IMAGE_REV="v4", **baked)
    assert (code, out) == (0, "serving\n"), err
    assert (fleet.sites / volume.KEPT).is_dir()
    assert {key: fleet.bench.config().get(key) for key in before} == before
    assert fleet.bench.sql("SELECT COUNT(*) FROM kept")[0][0] == 0
    assert fleet.bench.as_root("SHOW DATABASES") == [("shop",)]


def test_its_markers_are_no_proof_and_its_leftovers_no_obstacle(fleet: Fleet, original: Original) -> None:
    """Hazards 9, 20 and 22: killed in the middle of v2 it leaves markers, locks and a lease that nobody gives back."""
    for name in (".lock.init_v2", ".migrate_in_progress_v2", ".apps_installed_v2", ".migrated_v2", ".ready_v2"):
        (fleet.sites / name).touch()
    (fleet.sites / "s1" / "locks").mkdir(exist_ok=True)
    (fleet.sites / "s1" / "locks" / "bench_migrate.lock").touch()
    migrations = fleet.commands()["migrate"]
    code, out, err = fleet.run("echo", "serving", IMAGE_REV="v2", DB_NAME="shop")
    assert (code, out) == (0, "serving\n"), err
    assert fleet.commands()["migrate"] == migrations + 1
    assert original.marker("migrated", "v2").read_text().startswith("site s1 token ")
