"""Several sites: each on its own, different ones at the same time, never too many."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from coordinate import connect
from coordinate.testing import eventually
from coordinate.types import MarkerRecord, MarkerState
from frappe_bootstrap import image, settings
from frappe_bootstrap.sites import Sites
from frappe_bootstrap.waiting import Stop
from tests.frappe.conftest import LIMIT, Fleet
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from coordinate import Coordinator
    from coordinate.errors import CoordinateError
    from frappe_bootstrap.one_site import Site

REVISION = "registry/image:1"
THREE = {"SITE": "", "SITES": "s1 s2 s3"}


def ends(children: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Return exit codes and logs of replicas; many sites take long."""
    return [(child.returncode, err) for child in children for _, err in [child.communicate(timeout=4 * LIMIT)]]


def all_serve(children: list[subprocess.Popen[str]]) -> None:
    """Check that every replica ends well."""
    found = ends(children)
    assert {code for code, _ in found} == {0}, "\n".join(err for _, err in found)


def states(fleet: Fleet, step: str, revision: str = REVISION) -> dict[str, Any]:
    """Return the state of a step for each scope."""
    found = {}
    with connect(f"file://{fleet.sites}/.frappe_bootstrap") as coordinator:
        for scope in ("s1", "s2", "s3", ".bench"):
            record = coordinator.markers(f"frappe/{scope}").view().find(step, revision)
            found[scope] = record.state.value if record is not None else None
    return found


def spans(fleet: Fleet, command: str) -> list[tuple[int, int]]:
    """Return when each command of a kind began and ended."""
    lines = [json.loads(line) for line in (fleet.root / "bench.log").read_text().splitlines()]
    begun = {line["pid"]: line["ns"] for line in lines if line["event"] == "begin" and line["command"] == command}
    ended = {line["pid"]: line["ns"] for line in lines if line["event"] == "end" and line["command"] == command}
    return [(begun[pid], ended[pid]) for pid in begun]


def at_once(found: list[tuple[int, int]]) -> int:
    """Return how many were under way at the same time, at most."""
    return max(sum(begin <= start < end for begin, end in found) for start, _ in found)


def test_three_sites_are_made_once_each_and_the_mirrors_come_last(fleet: Fleet) -> None:
    """Hazard 5: records of one site say nothing about another; each has its database, the first is the default."""
    replicas = [fleet.start("sh", "-c", "echo serving", **THREE, DB_NAME="shop") for _ in range(2)]
    all_serve(replicas)
    assert fleet.commands() == {"new-site": 3, "scheduler": 3, "migrate": 6, "install-app": 3, "build": 1}
    assert states(fleet, "migrate") == {"s1": "done", "s2": "done", "s3": "done", ".bench": None}
    assert states(fleet, "ready") == dict.fromkeys(("s1", "s2", "s3", ".bench"), "done")
    names = {
        json.loads((fleet.sites / site / "site_config.json").read_text())["db_name"] for site in ("s1", "s2", "s3")
    }
    assert "shop" in names
    assert len(names) == 3
    assert json.loads((fleet.sites / "common_site_config.json").read_text())["default_site"] == "s1"
    text = (fleet.sites / image.mirror_name("ready", REVISION)).read_text()
    assert [line.split()[:2] for line in text.splitlines()] == [["site", name] for name in ("s1", "s2", "s3")]
    assert all((fleet.sites / image.mirror_name(f"ready-s{number}", REVISION)).exists() for number in (1, 2, 3))


def test_a_site_added_later_runs_alone_and_a_removed_one_is_not_touched(fleet: Fleet) -> None:
    """Nothing of the others is run again (hazard 24), nothing of the removed one is looked at."""
    assert fleet.run(SITE="s1")[0] == 0
    before = fleet.commands()
    code, _, err = fleet.run(**THREE)
    assert code == 0, err
    assert fleet.commands() - before == {"new-site": 2, "scheduler": 2, "migrate": 4, "install-app": 2}
    (fleet.sites / "s2" / "site_config.json").write_text("{")
    before = fleet.commands()
    code, _, err = fleet.run(SITE="s1", SITES="s1 s3", IMAGE_REV="2")
    assert code == 0, err
    assert fleet.commands() - before == {"migrate": 2}
    assert states(fleet, "migrate", "2")["s2"] is None
    assert (fleet.sites / "s2" / "site_config.json").read_text() == "{"


@pytest.mark.parametrize(("policy", "code"), [("any", 0), ("all", 81)])
def test_a_failing_site_stops_no_other_one(fleet: Fleet, policy: str, code: int) -> None:
    """Point 27: the fleet serves without it, or not at all; the others are ready in both cases."""
    (fleet.sites / "s2").mkdir(parents=True)
    (fleet.sites / "s2" / "site_config.json").write_text(json.dumps({"db_name": "other", "db_password": "x"}))
    found, out, err = fleet.run("echo", "serving", **THREE, READY_POLICY=policy)
    assert (found, out) == (code, "serving\n" if code == 0 else ""), err
    assert "site s2 is not ready" in err
    assert states(fleet, "migrate") == {"s1": "done", "s2": None, "s3": "done", ".bench": None}
    ready = fleet.sites / image.mirror_name("ready", REVISION)
    assert ready.exists() == (code == 0)
    if code == 0:
        assert "site s2 given up" in ready.read_text()


def test_sites_that_one_replica_must_leave_to_others_keep_it_from_nothing(fleet: Fleet) -> None:
    """Without root's password it migrates the site that is there, and waits for who can make the others."""
    assert fleet.run(SITE="s1")[0] == 0
    poor = fleet.start("echo", "serving", **THREE, DB_ROOT_PASS="", ADMIN_PASS="", IMAGE_REV="2")
    assert poor.stderr
    seen = ""
    while "step=migrate" not in seen or seen.count("declined") < 2:
        line = poor.stderr.readline()
        assert line, seen
        seen += line
    rich = fleet.start("echo", "serving", **THREE, IMAGE_REV="2")
    all_serve([poor, rich])


def test_as_many_sites_at_once_as_allowed_and_no_more(fleet: Fleet) -> None:
    """Point 28, over all containers; with a bound of two, two are at work and a third one waits."""
    assert fleet.run(**THREE)[0] == 0
    slow = {**THREE, "STANDIN_SCALE": "4", "IMAGE_REV": "2"}
    (fleet.root / "bench.log").unlink()
    replicas = [fleet.start("echo", "serving", **slow, MIGRATE_PARALLEL="2") for _ in range(3)]
    all_serve(replicas)
    assert len(spans(fleet, "migrate")) == 3
    assert at_once(spans(fleet, "migrate")) == 2


def test_a_killed_holder_of_the_only_slot_keeps_nobody_waiting(fleet: Fleet, tmp_path: Path) -> None:
    """A kill -9 in the middle of one site: its slot and its site go to the next replica."""
    assert fleet.run(**THREE)[0] == 0
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:locked")
    holder = fleet.start(**THREE, **gate.environ, IMAGE_REV="2", MIGRATE_PARALLEL="1")
    gate.wait()
    other = fleet.start("echo", "serving", **THREE, IMAGE_REV="2", MIGRATE_PARALLEL="1")
    holder.kill()
    out, err = other.communicate(timeout=LIMIT)
    assert (other.returncode, out) == (0, "serving\n"), err
    assert set(states(fleet, "ready", "2").values()) == {"done"}


class GivenUp:
    """A site with a step that was given up; counts how often it is worked on, and with how many slots taken."""

    def __init__(self, coordinator: Coordinator, *, restored: bool) -> None:
        self.name = "s1"
        self.work = SimpleNamespace(alone=True)
        self.looks = 0
        self.slots: list[bool] = []
        self._coordinator = coordinator
        self._restored = restored

    def records(self) -> tuple[bool, MarkerRecord]:
        """Return the given-up step."""
        return False, MarkerRecord("apps", REVISION, MarkerState.FAILED, detail="it was hopeless")

    def allows(self, *_: object) -> bool:
        """Return that this container does not try again."""
        return False

    def is_migrated(self) -> bool:
        """Return that what comes before is recorded as done."""
        return True

    def is_restored(self) -> bool:
        """Count."""
        self.looks += 1
        return self._restored

    def bring_about(self, *_: object, **__: object) -> None:
        """Look whether a slot is taken."""
        self.slots.append(self._coordinator.lease("frappe/.slots/1").holder() is not None)


@pytest.mark.parametrize("restored", [False, True])
def test_a_given_up_site_is_worked_on_only_after_a_restore_and_with_a_slot(
    environ: dict[str, str], *, restored: bool
) -> None:
    """What may not be tried again is not tried as if we had just started; and never without a slot."""
    with connect(f"memory://given-up-{restored}") as coordinator:
        site, stop = GivenUp(coordinator, restored=restored), Stop()
        busy = coordinator.lease("frappe/.slots/1")
        assert busy.try_acquire()
        sites = Sites([cast("Site", site)], coordinator, stop, settings.load({**environ, "MIGRATE_PARALLEL": "1"}))
        found: list[dict[str, CoordinateError]] = []
        thread = threading.Thread(target=lambda: found.append(sites.run()))
        thread.start()
        if restored:
            eventually(lambda: site.looks == 1, what="a look")
            assert site.slots == []
        busy.release()
        thread.join(60)
        assert (list(found[0]), site.slots) == (([], [True]) if restored else (["s1"], []))
        assert site.looks == 1


# The whole bootstrap, which takes sites in their order, and always comes an instant too late to see that one is held.
TOO_LATE = """
import random, sys
from frappe_bootstrap import cli, one_site
random.sample = lambda those, number: list(those)[:number]
one_site.Site.is_free = lambda site: True
cli.main(sys.argv[1:])
"""


def test_who_loses_the_race_for_a_site_does_the_others_meanwhile(fleet: Fleet, tmp_path: Path) -> None:
    """Measured once: 240 of 247 seconds in line for the leader of one site, beside sites that nobody worked on."""
    assert fleet.run(**THREE)[0] == 0
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "migrate:locked")
    first = fleet.start("echo", "serving", program=TOO_LATE, **THREE, **gate.environ, IMAGE_REV="2")
    gate.wait()
    second = fleet.start("echo", "serving", program=TOO_LATE, **THREE, IMAGE_REV="2")
    wanted = {"s1": "in progress", "s2": "done", "s3": "done", ".bench": None}
    eventually(lambda: states(fleet, "migrate", "2") == wanted, within=120, what="the other sites, the first one held")
    gate.open()
    all_serve([first, second])
    assert len(spans(fleet, "migrate")) == 9


def test_four_replicas_migrate_four_sites_at_the_same_time(fleet: Fleet, tmp_path: Path) -> None:
    """Point 28: none waits for another one's site; each site is migrated once."""
    several = {"SITE": "", "SITES": "s0 s1 s2 s3", "MIGRATE_PARALLEL": "4", "APPS": ""}
    all_serve([fleet.start(**several)])
    gate = tmp_path / "gate"
    replicas = [fleet.start(**several, IMAGE_REV="2", STANDIN_PAUSE=f"migrate:locked={gate}") for _ in range(4)]
    eventually(lambda: fleet.commands()["migrate"] == 8, within=LIMIT, what="four migrations under way")
    gate.touch()
    all_serve(replicas)
    assert fleet.commands()["migrate"] == 8
