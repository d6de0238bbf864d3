"""Volumes and containers as they should not be: odd files, strange users, read-only roots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap import probes
from tests.frappe.conftest import LIMIT, Fleet
from tests.standin.fleet import make_bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def outside(path: Path) -> None:
    """Make it a link to a file of the machine."""
    target = path.parent.parent / "precious.json"
    target.write_text("{}")
    path.symlink_to(target)


ODD: dict[str, Callable[[Path], object]] = {
    "is not a plain file": os.mkfifo,
    "is larger than": lambda path: path.write_bytes(b" " * (17 << 20)),
    "is a link that leaves its folder": outside,
    "is not text": lambda path: path.write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("words", ODD)
@pytest.mark.parametrize("name", ["common_site_config.json", "s1/site_config.json", "apps.txt"])
def test_an_odd_file_in_the_place_of_a_config_is_named_and_left_alone(fleet: Fleet, words: str, name: str) -> None:
    """78 at once: nothing waits for a fifo, reads gigabytes, or writes through a link into another place."""
    path = fleet.sites / name
    path.parent.mkdir(parents=True)
    ODD[words](path)
    before = path.lstat()
    code, out, err = fleet.run("echo", "serving")
    assert (code, out) == (78, "")
    assert f"{name}: {words}" in err
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_folder_named_like_a_config_and_a_link_to_nothing_are_named(fleet: Fleet) -> None:
    """A site whose volume is not mounted is not absent: it must not be made anew."""
    (fleet.sites / "common_site_config.json").mkdir(parents=True)
    (fleet.sites / "s1").symlink_to(fleet.root / "not-mounted")
    code, _, err = fleet.run("echo", "serving")
    assert code == 78
    assert "common_site_config.json: Is a directory" in err
    assert "s1: is a link to nothing; is another volume not mounted?" in err
    assert fleet.commands() == {}


def test_a_site_folder_on_another_volume_works(fleet: Fleet) -> None:
    """A link to a folder elsewhere: its config is changed there, and the link stays."""
    assert fleet.run()[0] == 0
    elsewhere = fleet.root / "elsewhere"
    (fleet.sites / "s1").rename(elsewhere)
    (fleet.sites / "s1").symlink_to(elsewhere)
    code, out, err = fleet.run("echo", "serving", IMAGE_REV="2")
    assert (code, out) == (0, "serving\n"), err
    assert (fleet.sites / "s1").is_symlink()
    assert "encryption_key" in json.loads((elsewhere / "site_config.json").read_text())


# May read everything, so that it finds the interpreter wherever that is; may write what its user may.
READING = "--inh-caps +dac_read_search --ambient-caps +dac_read_search"


def confined(fleet: Fleet, script: str, bench: Path, **environ: str) -> tuple[int, str, str]:
    """Run a shell script in mounts of its own, with the environment of a replica on that bench."""
    done = subprocess.run(
        ["/usr/bin/unshare", "--mount", "sh", "-ec", script],
        env={**fleet.environ, "BENCH_DIR": str(bench), **environ},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_random_user_on_a_read_only_root_boots_and_owns_nothing_anew(fleet: Fleet) -> None:
    """Hazard 34, point 19, pain 26: no passwd entry, group 0, everything read-only but what group 0 may write."""
    bench = make_bench.make_bench(fleet.root / "bench", ["demo_app"], apps_txt=False, sites=fleet.sites)
    writable = [fleet.sites, bench / "config", bench / "config/pids", bench / "logs", fleet.root / "server"]
    writable += [fleet.root / name for name in ("lease", "fleet", "state")]
    for folder in writable:
        folder.mkdir(exist_ok=True)
    for folder in (*writable, fleet.root / "server" / "sessions"):
        folder.chmod(0o2775)
    (fleet.root / "bench.log").touch()
    (fleet.root / "bench.log").chmod(0o664)
    fleet.root.chmod(0o755)
    baked = fleet.root / "baked"
    baked.mkdir()
    (baked / "assets.json").write_text("{}")
    mounts = "; ".join(f"mount --bind {folder} {folder}" for folder in [*writable, fleet.root / "bench.log"])
    script = (
        f"mount --bind {fleet.root} {fleet.root}; cd {fleet.root}; {mounts}; "
        f"mount -o remount,bind,ro {fleet.root}; ! touch {bench}/apps/x 2>/dev/null; "
        f"exec setpriv --reuid 4711 --regid 0 --clear-groups {READING} "
        f"{sys.executable} -m frappe_bootstrap -- sh -c 'id -u; cat {fleet.sites}/apps.txt'"
    )
    state = {"BOOTSTRAP_STATE_DIR": str(fleet.root / "state"), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    code, out, err = confined(fleet, script, bench, BAKED_ASSETS=str(baked), **state)
    assert (code, out.split()) == (0, ["4711", "frappe", "demo_app"]), err
    assert (fleet.sites / "assets").is_symlink()
    assert fleet.sites.stat().st_uid == 0
    code, out, err = confined(fleet, script, bench, REBUILD_ASSETS_ON_BOOT="1", IMAGE_REV="2", **state)
    assert (code, out) == (78, ""), err
    assert "which is read-only" in err
    assert not probes.read(state)


def test_folders_that_a_random_user_cannot_write_are_all_named(fleet: Fleet) -> None:
    """Hazard 34: with the fix, instead of a recursive chown of the whole file store."""
    bench = make_bench.make_bench(fleet.root / "bench", ["demo_app"], sites=fleet.sites)
    user = f"setpriv --reuid 4711 --regid 4711 --clear-groups {READING}"
    script = f"exec {user} {sys.executable} -m frappe_bootstrap -- echo serving"
    code, out, err = confined(fleet, script, bench, BOOTSTRAP_STATE_DIR=str(fleet.root / "state"))
    assert (code, out) == (78, ""), err
    for part in ("sites", "logs", "config", "config/pids"):
        assert f"{bench / part}: Permission denied" in err
    assert "user 4711, group 4711" in err
