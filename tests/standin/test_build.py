"""build: links, hashes, and the instants in which the map of names is wrong (real-frappe 3, 4, 8, 9)."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.standin.fleet import Bench, Gate

NO_REDIS = {"FRAPPE_REDIS_CACHE": "redis://127.0.0.1:1", "STANDIN_DB_DIR": "/nonexistent"}


def names(bench: Bench) -> dict[str, str]:
    """Return the map of names."""
    return bench.config("assets/assets.json")


def bundlers(pid: int) -> list[str]:
    """Return the bundling children of a build; the gate's script may be a child, too, for a moment."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if b"read line" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_css_names_differ_per_build_of_the_same_source_and_js_names_do_not(bench: Bench) -> None:
    """real-frappe 9: containers that each build do not have each other's files; no site or Redis is needed."""
    bench.ok("build", "--production", **NO_REDIS)
    first = names(bench)
    bench.ok("build", "--production", "--app", "frappe", **NO_REDIS)
    changed = {name for name, path in names(bench).items() if first[name] != path}
    assert changed == {"frappe.bundle.css"}


def test_an_app_is_an_absolute_link_and_with_hard_link_a_copy(bench: Bench) -> None:
    """real-frappe 9: a later build without the flag turns the copy back into a link."""
    link = bench.sites / "assets" / "frappe"
    bench.ok("build", "--hard-link", **NO_REDIS)
    assert not link.is_symlink()
    assert all((bench.sites / path.lstrip("/")).exists() for path in names(bench).values())
    bench.ok("build", **NO_REDIS)
    assert link.readlink() == bench.path / "apps" / "frappe" / "frappe" / "public"


def test_the_map_of_names_is_empty_for_an_instant(bench: Bench, gate: Callable[[str], Gate]) -> None:
    """real-frappe 9: rewritten in place, not by rename."""
    bench.ok("build", **NO_REDIS)
    held = gate("build:empty_json@assets.json")
    with bench.started("build", **held.environ) as process:
        held.wait()
        assert (bench.sites / "assets" / "assets.json").read_text() == ""
        held.open()
        process.communicate(timeout=120)
    assert names(bench)


def test_for_a_while_the_names_point_at_deleted_files(bench: Bench, gate: Callable[[str], Gate]) -> None:
    """real-frappe 9: a kill there leaves them so; build is a tree, and only its group's death ends it."""
    bench.ok("build", **NO_REDIS)
    held = gate("build:bundles")
    with bench.started("build", **held.environ) as process:
        held.wait()
        children = bundlers(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert children
        assert all(Path(f"/proc/{child}").exists() for child in children)
        assert os.getpgid(int(children[0])) == process.pid
    assert not any((bench.sites / path.lstrip("/")).exists() for path in names(bench).values())


def test_an_unknown_app_is_1_with_yarns_143_in_the_text(bench: Bench) -> None:
    """real-frappe 4: the 143 is not the exit code."""
    done = bench.run("build", "--app", "stranger")
    assert done.returncode == 1
    assert "143" in done.stdout


def test_the_build_lock_is_outside_sites_and_so_private_to_a_container(bench: Bench) -> None:
    """real-frappe 8: two builds in one bench exclude each other, in two they do not."""
    with (bench.path / "config" / "bench_build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = bench.run("build")
    assert done.returncode == 1
    assert "Failed to aquire lock: bench_build" in done.stderr


def test_on_an_empty_volume_one_app_makes_a_map_of_its_own_names_only(bench: Bench) -> None:
    """real-frappe 9: otherwise it merges."""
    bench.ok("build", "--app", "demo_app", **NO_REDIS)
    assert {name.partition(".")[0] for name in names(bench)} == {"demo_app"}
    assert json.loads((bench.sites / "assets" / "assets-rtl.json").read_text())
