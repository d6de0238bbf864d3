"""Leases on a site outside of its steps: above every token that the volume carries, and never beside a leader."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.errors import Contended, StepFailed
from coordinate.steps import Budget, Outcome, Plan, Step, run
from coordinate.types import LeaseRecord, MarkerState, Owner
from frappe_bootstrap import commands, owning, repair, settings
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.waiting import Stop
from frappe_bootstrap.work import Work
from tests.frappe.conftest import LIMIT, Fleet
from tests.frappe.test_maintenance import closed, flags, set_config
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    from pathlib import Path

JOURNAL = "frappe_bootstrap_maintenance"
FAR = 1_000_000
SOMEBODY = LeaseRecord("frappe/s1", 7, Owner("n"), 15)


def close(fleet: Fleet, token: int) -> None:
    """Leave the site as a leader with that token does that died before it changed anything."""
    journal = {"before": {}, "since": 1.0, "revision": "2", "token": token}
    set_config(fleet, maintenance_mode=1, pause_scheduler=1, **{JOURNAL: journal})
    assert closed(fleet)


def empty_lease_store(fleet: Fleet) -> None:
    """Let the lease store forget everything; it counts from the beginning again."""
    shutil.rmtree(fleet.root / "lease")


@pytest.mark.parametrize("command", [(), ("repair", "--maintenance", "s1")])
def test_a_site_that_was_closed_under_a_high_token_is_opened_with_an_emptied_lease_store(
    fleet: Fleet, command: tuple[str, ...]
) -> None:
    """At its revision, by a start or an operator: 83 until somebody edits the config by hand would be no answer."""
    assert fleet.run()[0] == 0
    close(fleet, FAR)
    empty_lease_store(fleet)
    code, _, err = fleet.run(*command)
    assert code == 0, err
    assert flags(fleet) == {}


def test_a_migration_goes_above_the_token_of_the_journal_too(fleet: Fleet) -> None:
    """Whoever finds the site closed closes it again under its own token: a claim alone does not tell of all of them."""
    assert fleet.run()[0] == 0
    close(fleet, FAR)
    empty_lease_store(fleet)
    code, _, err = fleet.run(IMAGE_REV="2", UPGRADE_MODE="maintenance")
    assert code == 0, err
    assert fleet.record("migrate", "2")["token"] > FAR
    assert flags(fleet) == {}


def test_every_lease_outside_of_the_steps_goes_above_what_was_claimed(fleet: Fleet) -> None:
    """Here the rotation of the common config's values and of the assets' link: each of them is a grant of the store."""
    assert fleet.run()[0] == 0
    with connect(f"file://{fleet.root}/lease", markers_url=f"file://{fleet.sites}/.frappe_bootstrap") as coordinator:
        lease = coordinator.lease("frappe/s1").acquire(60, floor=FAR)
        with lease:
            coordinator.markers("frappe/s1").claim(lease, coordinator.backend.store_id)
    empty_lease_store(fleet)
    (fleet.sites / "common_site_config.json").write_text("{}")
    code, _, err = fleet.run()
    assert code == 0, err
    assert "the environment has changed" in err
    with connect(f"file://{fleet.root}/lease") as coordinator, coordinator.lease("frappe/s1").acquire(60) as lease:
        assert lease.token > FAR


@pytest.mark.parametrize("flag", [(), ("--done",)])
def test_retry_clears_nothing_while_somebody_is_at_work_and_says_who(
    fleet: Fleet, tmp_path: Path, flag: tuple[str, ...]
) -> None:
    """What a leader has done is not forgotten under its feet; afterwards the same command does what it says."""
    assert fleet.run()[0] == 0
    gate = Gate(tmp_path, "migrate:locked")
    leader = fleet.start("echo", "serving", IMAGE_REV="2", **gate.environ)
    gate.wait()
    before = {step: fleet.record(step, "2") for step in ("config", "site")}
    code, out, err = fleet.run("retry", *flag, "s1", IMAGE_REV="2")
    assert (code, out) == (75, ""), err
    assert "somebody is at work, so nothing was cleared" in err
    assert f"[{leader.pid}]" in err
    assert {step: fleet.record(step, "2") for step in before} == before
    assert {record["state"] for record in before.values()} == {"done"}
    gate.open()
    out, err = leader.communicate(timeout=LIMIT)
    assert (leader.returncode, out) == (0, "serving\n"), err
    code, out, err = fleet.run("retry", *flag, "s1", IMAGE_REV="2")
    assert code == 0, err
    assert ("cleared nothing" in out) == (not flag)
    assert (fleet.record("migrate", "2") == {}) == bool(flag)


@pytest.mark.parametrize("led", [False, True])
def test_a_repair_clears_failures_unless_somebody_leads_by_then(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, led: bool
) -> None:
    """Whoever waits for the lease has it an instant after the repair: its record is its own business."""
    chosen = settings.load(environ)
    said: list[str] = []
    work = Work(chosen, Bench(chosen, Stop(), {}), lambda _, text: said.append(text))

    def fail(_: object) -> None:
        """Fail as a creation may."""
        raise RuntimeError

    with connect(f"memory://repair-{led}") as coordinator, connect(f"memory://repair-{led}") as other:
        with pytest.raises(StepFailed):
            run(Plan(work.scope, "1", [Step("site", fail)], Budget(failures=1)), coordinator)

        def repaired(*_: object, **__: object) -> Outcome:
            """Do nothing but what may happen right after it."""
            if led:
                other.lease(work.scope).acquire(60)
            return Outcome.RAN

        monkeypatch.setattr(repair, "run", repaired)
        repair.repair(work, coordinator)
        record = coordinator.markers(work.scope).view().find("site", "1")
        assert (record is not None and record.state is MarkerState.FAILED) == led
        assert [text.endswith(f"then: frappe-bootstrap retry {chosen.site}") for text in said] == [True] * led


@pytest.mark.parametrize(("holder", "words"), [(None, "not to be had now, so"), (SOMEBODY, "at work, so")])
def test_retry_names_nobody_where_nobody_is_known(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, holder: LeaseRecord | None, words: str
) -> None:
    """A store that is quarantined, or waits for a dead holder's time to end, lets nobody in: that is nobody's work."""
    chosen = settings.load(environ)

    def refused(*_: object, **__: object) -> None:
        message = "no lease"
        raise Contended(message, holder)

    monkeypatch.setattr(owning, "own", refused)
    work = Work(chosen, Bench(chosen, Stop(), {}), lambda *_: None)
    with connect("memory://retry-names-nobody") as coordinator, pytest.raises(Contended, match=words):
        commands._retry([work], coordinator, [chosen.site])
