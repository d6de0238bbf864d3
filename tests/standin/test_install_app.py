"""install-app: listed before it is installed (real-frappe 4, 6; operating-frappe 11, 12)."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import pytest

from tests.standin.fleet import make_bench

if TYPE_CHECKING:
    from tests.standin.fleet import Bench


@pytest.mark.parametrize(("knob", "code"), [("STANDIN_DIE", -9), ("STANDIN_FAIL", 1)])
def test_an_interrupted_after_install_is_never_made_up_for(site: Bench, knob: str, code: int) -> None:
    """real-frappe 6: the list is committed before the hook; the next install-app says 0 and runs nothing."""
    done = site.run("--site", "s1", "install-app", "demo_app", **{knob: "install-app:after_install"})
    assert done.returncode == code
    assert site.installed() == ["frappe", "demo_app"]
    assert "already installed" in site.ok("--site", "s1", "install-app", "demo_app")
    assert site.runs_of("demo_app:after_install") == 0
    site.ok("--site", "s1", "install-app", "demo_app", "--force")
    assert site.runs_of("demo_app:after_install") == 1


def test_a_failing_before_install_leaves_the_app_unlisted(site: Bench) -> None:
    """real-frappe 6: that retry is clean."""
    point = "install-app:before_install"
    assert site.run("--site", "s1", "install-app", "demo_app", STANDIN_FAIL=point).returncode == 1
    assert site.installed() == ["frappe"]
    site.ok("--site", "s1", "install-app", "demo_app")
    assert site.runs_of("demo_app:after_install") == 1


def test_an_unknown_app_does_not_keep_later_ones_from_being_installed(site: Bench) -> None:
    """real-frappe 4: the result is 1, and the app after it is there."""
    done = site.run("--site", "s1", "install-app", "stranger", "demo_app")
    assert done.returncode == 1
    assert "not in apps.txt" in done.stderr
    assert site.installed() == ["frappe", "demo_app"]


def test_an_app_of_apps_txt_that_is_not_in_the_image_is_a_traceback(site: Bench) -> None:
    """operating-frappe 3: ModuleNotFoundError."""
    (site.sites / "apps.txt").write_text("frappe\nghost_app\n")
    done = site.run("--site", "s1", "install-app", "ghost_app")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_an_install_on_a_half_made_site_fails_but_lists_the_app(bench: Bench) -> None:
    """real-frappe 5: it can leave installed_apps = ["demo_app"] only."""
    bench.new_site(STANDIN_DIE="new-site:doctypes@84")
    assert bench.run("--site", "s1", "install-app", "demo_app").returncode == 1
    assert bench.installed() == ["demo_app"]


def test_a_held_lock_is_waited_for_one_second_then_1(site: Bench) -> None:
    """real-frappe 8: an ordinary flock on install_app.lock, visible from outside."""
    with (site.sites / "s1" / "locks" / "install_app.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = site.run("--site", "s1", "install-app", "demo_app")
    assert done.returncode == 1
    assert "Failed to aquire lock: install_app" in done.stderr


def test_an_older_image_migrates_a_newer_list_with_0_and_records_less(site: Bench) -> None:
    """real-frappe 6: gone from apps.txt, migrate says 0, list-apps forgets it, the row does not."""
    site.ok("--site", "s1", "install-app", "demo_app")
    (site.sites / "apps.txt").write_text("frappe\n")
    site.ok("--site", "s1", "migrate")
    assert site.ok("--site", "s1", "list-apps", "-f", "json") == '{"s1": ["frappe"]}\n'
    assert site.installed() == ["frappe", "demo_app"]


def test_patches_of_a_freshly_installed_app_count_as_done(site: Bench) -> None:
    """real-frappe 7: only patches of a newer image run at the next migrate."""
    site.ok("--site", "s1", "install-app", "demo_app")
    make_bench.make_app(site.path, "demo_app", ["p1", "p2", "p3"])
    site.ok("--site", "s1", "migrate")
    assert [site.runs_of(f"patch:demo_app.patches.{name}") for name in ("p1", "p3")] == [0, 1]
