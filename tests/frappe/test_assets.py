"""Assets of the image, assets on the volume, the way there and back; the framework's cached map of them."""

from __future__ import annotations

import json
import os
import pickle
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap import assets_cache, image, redis_link, volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.frappe.conftest import Fleet


def nothing() -> None:
    """Check nothing: the lease is held."""


def bake(fleet: Fleet, name: str) -> Path:
    """Return a folder with the assets of an image, as its build leaves them."""
    folder = fleet.root / name
    (folder / "frappe/dist").mkdir(parents=True)
    (folder / "frappe/dist/a.HASH.js").write_text(name)
    (folder / "assets.json").write_text(json.dumps({"a.bundle.js": "/assets/frappe/dist/a.HASH.js"}))
    return folder


def test_the_assets_of_the_image_are_linked_and_nothing_is_built(fleet: Fleet) -> None:
    """Hazards 25, 28 and 30, point 20: every container follows the same link to its own files."""
    baked = bake(fleet, "baked")
    code, _, err = fleet.run("echo", BAKED_ASSETS=str(baked))
    assert code == 0, err
    assert fleet.commands()["build"] == 0
    assert os.readlink(fleet.sites / "assets") == str(baked)  # noqa: PTH115 -- the text of the link
    assert image.unresolved_assets(fleet.sites) == []
    assert "have no file in this container" not in err


def test_a_volume_of_the_original_image_is_converted_once_and_given_back(fleet: Fleet) -> None:
    """Point 20: its own folder of assets is kept beside the link, comes back whole, and may go there again."""
    assert fleet.run()[0] == 0
    folder = fleet.sites / "assets"
    (folder / "kept").write_text("by the original image")
    before = sorted(path.name for path in folder.iterdir())
    baked = {"BAKED_ASSETS": str(bake(fleet, "baked"))}
    for revision in ("2", "3"):
        assert fleet.run(IMAGE_REV=revision, **baked)[0] == 0
        assert folder.is_symlink()
    code, out, err = fleet.run("release-volume", **baked)
    assert code == 0, err
    assert "is the folder again" in out
    assert not folder.is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not (fleet.sites / volume.KEPT).exists()
    code, _, err = fleet.run("echo", IMAGE_REV="3", **baked)
    assert (code, folder.is_symlink()) == (0, True), err
    assert "linked again" in err
    assert (fleet.sites / volume.KEPT / "kept").exists()
    assert fleet.commands()["build"] == 1


def test_who_died_between_the_link_and_the_reopening_leaves_it_to_the_next_one(fleet: Fleet) -> None:
    """Points 13 and 20: the link is there, and the site is closed, as the one that made it had to leave it."""
    baked = {"BAKED_ASSETS": str(bake(fleet, "baked"))}
    assert fleet.run("echo", **baked)[0] == 0
    path = fleet.sites / "s1" / "site_config.json"
    token = fleet.record("assets")["token"]
    journal = {"before": {"pause_scheduler": 0}, "revision": "registry/image:1", "token": token}
    closed = {"maintenance_mode": 1, "pause_scheduler": 1, "frappe_bootstrap_maintenance": journal}
    path.write_text(json.dumps({**fleet.bench.config(), **closed}))
    fleet.reset("assets")
    code, _, err = fleet.run("echo", **baked)
    assert code == 0, err
    assert fleet.bench.config().get("maintenance_mode") is None
    assert fleet.bench.config()["pause_scheduler"] == 0


def test_building_is_still_there_for_those_who_ask_for_it(fleet: Fleet) -> None:
    """REBUILD_ASSETS_ON_BOOT=1: never through the link into an image."""
    baked = bake(fleet, "baked")
    assert fleet.run(BAKED_ASSETS=str(baked))[0] == 0
    code, _, err = fleet.run("echo", IMAGE_REV="2", BAKED_ASSETS=str(baked), REBUILD_ASSETS_ON_BOOT="1")
    assert code == 0, err
    assert not (fleet.sites / "assets").is_symlink()
    assert fleet.commands()["build"] == 1
    assert (baked / "assets.json").read_text() == '{"a.bundle.js": "/assets/frappe/dist/a.HASH.js"}'


def test_a_conversion_that_dies_half_way_is_completed_by_either_way(tmp_path: Path) -> None:
    """The folder is moved away, the link is not there yet: neither way loses it."""
    target, kept = tmp_path / "image", tmp_path / volume.KEPT
    for complete, is_link in (
        (lambda: volume.link(tmp_path, target, nothing), True),
        (lambda: volume.release(tmp_path, nothing), False),
    ):
        kept.mkdir()
        (kept / "theirs").touch()
        complete()
        assert (tmp_path / "assets").is_symlink() == is_link
        volume.release(tmp_path, nothing)
        assert [path.name for path in (tmp_path / "assets").iterdir()] == ["theirs"]
        (tmp_path / "assets" / "theirs").unlink()
        (tmp_path / "assets").rmdir()


def test_a_lost_lease_changes_nothing_on_the_volume(tmp_path: Path) -> None:
    """The check comes before each effect, and no temporary link is left."""

    def lost() -> None:
        raise TimeoutError

    (tmp_path / "assets").mkdir()
    calls: tuple[Callable[[], object], ...] = (
        lambda: volume.link(tmp_path, tmp_path / "image", lost),
        lambda: volume.release(tmp_path, lost),
    )
    for call in calls:
        with pytest.raises(TimeoutError):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]
    assert (tmp_path / "assets").is_dir()


def test_what_is_no_folder_and_no_link_is_not_replaced(tmp_path: Path) -> None:
    """A plain file or a fifo in the place of the assets is somebody's mistake, not ours to remove."""
    os.mkfifo(tmp_path / "assets")
    with pytest.raises(NotADirectoryError):
        volume.link(tmp_path, tmp_path / "image", nothing)
    assert (tmp_path / "assets").is_fifo()


def test_a_volume_without_a_kept_folder_makes_the_original_build(tmp_path: Path) -> None:
    """It believes in its own mirror, so that has to go."""
    for name in (".assets_built_v1", ".migrated_v1"):
        (tmp_path / name).touch()
    (tmp_path / "assets").symlink_to(tmp_path / "image")
    assert "empty folder" in volume.release(tmp_path, nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".migrated_v1", "assets"]
    assert "already" in volume.release(tmp_path, nothing)


def test_the_cached_map_of_another_image_is_dropped_and_our_own_is_not(tmp_path: Path, redis_port: int) -> None:
    """Point 20, pain 6: one key for all revisions; it is a pickle, and is compared without being opened."""
    url, ours = f"redis://127.0.0.1:{redis_port}/7", {"a.bundle.css": "/assets/frappe/dist/a.OURS.css"}
    (tmp_path / "assets").mkdir()
    assert not assets_cache.drop_foreign(url, tmp_path)
    redis_link.ask(url, "SET", assets_cache.KEY, "x")
    assert not assets_cache.drop_foreign(url, tmp_path)
    (tmp_path / "assets/assets.json").write_text(json.dumps(ours))
    redis_link.ask(url, "SET", assets_cache.KEY, pickle.dumps(ours, 0).decode())
    assert not assets_cache.drop_foreign(url, tmp_path)
    theirs = {"a.bundle.css": "/assets/frappe/dist/a.THEIRS.css"}
    redis_link.ask(url, "SET", assets_cache.KEY, pickle.dumps(theirs, 0).decode())
    assert assets_cache.drop_foreign(url, tmp_path)
    assert redis_link.ask(url, "GET", assets_cache.KEY) is None
    assert not assets_cache.drop_foreign("redis://127.0.0.1:1", tmp_path)


def test_a_boot_drops_the_cached_map_of_another_image(fleet: Fleet) -> None:
    """Before the command starts, so that its first page names its own files; also when nothing else is to be done."""
    baked, url = bake(fleet, "baked"), f"redis://127.0.0.1:{fleet.environ['REDIS_CACHE_PORT']}"
    assert fleet.run("true", BAKED_ASSETS=str(baked))[0] == 0
    redis_link.ask(url, "SET", assets_cache.KEY, "/assets/frappe/dist/a.OLD.js")
    code, _, err = fleet.run("true", BAKED_ASSETS=str(baked))
    assert code == 0, err
    assert "another image had cached is dropped" in err
    assert redis_link.ask(url, "GET", assets_cache.KEY) is None
