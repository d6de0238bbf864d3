"""BOOTSTRAP_MODE=supervise, roles, and what a signal does while a step runs; real processes."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from coordinate import connect
from coordinate.testing import eventually
from coordinate.types import MarkerRecord, MarkerState, Verdict
from frappe_bootstrap import probes, record, watch
from tests.frappe.conftest import LIMIT, Fleet, done_steps
from tests.servers import free_port
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    from pathlib import Path

SUPERVISED = {"BOOTSTRAP_MODE": "supervise"}
# Says which signals it gets; ends at the second TERM only, in its own time, as a worker that finishes its job.
LISTENER = """
import os, signal, sys, time
heard = []
def hear(number, _):
    heard.append(number)
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
    if heard.count(signal.SIGTERM) == 2:
        sys.exit(7)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, hear)
print("up", os.getsid(0) == os.getpid(), flush=True)
while True:
    time.sleep(60)
"""


def read_until(child: subprocess.Popen[str], words: str) -> None:
    """Return when a replica has logged something."""
    assert child.stderr
    while words not in (line := child.stderr.readline()):
        assert line, f"it ended without: {words}"


def said(fleet: Fleet, number: int = 0) -> dict[str, object]:
    """Return what a replica says to its probes."""
    return probes.read({"BOOTSTRAP_STATE_DIR": str(fleet.benches[number] / "state")})


def begin(fleet: Fleet, step: str, revision: str) -> None:
    """Let another revision's leader begin a step and leave it so."""
    with connect(f"file://{fleet.root}/lease", markers_url=f"file://{fleet.sites}/.frappe_bootstrap") as coordinator:
        markers = coordinator.markers("frappe/s1")
        floor = markers.view().claim
        lease = coordinator.lease("frappe/s1")
        lease.acquire(60)
        with lease:
            assert floor is not None
            assert lease.token > floor.token
            markers.claim(lease, coordinator.backend.store_id)
            markers.update(markers.begin(step, revision), notes={"changed": "1"} if step == "migrate" else {})


def test_a_supervised_command_gets_every_signal_and_decides_itself_when_it_ends(fleet: Fleet) -> None:
    """Hazard 19: its own session, its own grace; its exit code is ours."""
    child = fleet.start(sys.executable, "-c", LISTENER, **SUPERVISED)
    assert child.stdout
    assert child.stdout.readline() == "up True\n"
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
        assert child.stdout.readline() == f"{number.name}\n"
    assert said(fleet)["state"] == "serving"
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 7, err


def test_a_supervised_command_that_is_killed_or_missing_shows_as_in_a_shell(fleet: Fleet) -> None:
    """128 + n, 127, 126; and no secret in its environment."""
    assert fleet.run("sh", "-c", "kill -KILL $$", **SUPERVISED)[0] == 137
    assert fleet.run("no-such-program", **SUPERVISED)[0] == 127
    assert fleet.run(os.devnull, **SUPERVISED)[0] == 126
    code, out, _ = fleet.run("env", **SUPERVISED)
    assert code == 0
    assert not [canary for canary in fleet.canaries.values() if canary in out]
    assert "SITE=s1" in out


def test_as_process_1_it_reaps_orphans(fleet: Fleet) -> None:
    """In a pid namespace of its own, as in a container: whoever loses its parent comes to us, and is not left dead."""
    assert fleet.run()[0] == 0
    orphan = "sh -c 'sleep 0.2 & :'; sleep 1; cat /proc/[0-9]*/stat"
    script = f'exec {sys.executable} -m frappe_bootstrap -- sh -c "{orphan}"'
    done = subprocess.run(
        ["/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script],
        env={**fleet.environ, **SUPERVISED, "BENCH_DIR": str(fleet.benches[0]), "BOOTSTRAP_STATE_DIR": str(fleet.root)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    states = {line.rpartition(")")[2].split()[0] for line in done.stdout.splitlines()}
    assert "1 (" in done.stdout
    assert "Z" not in states


def test_a_newer_revision_makes_it_unready_until_its_record_is_cleared(fleet: Fleet) -> None:
    """Hazard 11, point 13: N-1 under our supervision does not serve while N changes the schema; it does again after."""
    child = fleet.start("sleep", "600", **SUPERVISED)
    read_until(child, "starting sleep")
    eventually(lambda: said(fleet).get("state") == "serving", within=30, what="serving")
    begin(fleet, "config", "2")
    begin(fleet, "migrate", "2")
    read_until(child, "revision 2 has begun its work; ON_UPGRADE=unready")
    eventually(lambda: said(fleet).get("state") == "unready", within=30, what="unready")
    assert probes.answer("live", {"BOOTSTRAP_STATE_DIR": str(fleet.benches[0] / "state")})[0]
    with connect(f"file://{fleet.sites}/.frappe_bootstrap") as coordinator:
        # Not by a retry: that keeps what says that the site may have been changed.
        assert coordinator.marker_backend.delete_marker("frappe/s1", "migrate", "2")
    read_until(child, "ready again")
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=LIMIT)
    assert child.returncode == 128 + signal.SIGTERM


def test_an_upgrade_that_is_given_up_before_its_first_effect_leaves_the_older_revision_ready(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Its hook fails, or it is stopped while it closes the site; one that has changed something does not."""
    child = fleet.start("sleep", "600", **SUPERVISED)
    read_until(child, "starting sleep")
    go = tmp_path / "go"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.05; done\nexit 3\n")
    hook.chmod(0o755)
    failing = fleet.start("echo", "serving", IMAGE_REV="2", PRE_MIGRATE_HOOK=str(hook))
    eventually(lambda: fleet.record("migrate", "2").get("state") == "in progress", within=60, what="the hook")
    go.touch()
    failing.communicate(timeout=LIMIT)
    assert failing.returncode == 76
    closing = fleet.start("echo", "serving", IMAGE_REV="3", MAINTENANCE_WAIT_SECS="600")
    read_until(closing, "in maintenance")
    assert child.stderr
    while "has begun its work" not in (line := child.stderr.readline()):
        assert line
    assert "revision 3 has begun its work" in line  # and not revision 2, whose hook has failed
    closing.terminate()
    closing.communicate(timeout=LIMIT)
    eventually(lambda: said(fleet).get("state") == "serving", within=60, what="serving after the stop")
    assert fleet.run("echo", "serving", IMAGE_REV="4", STANDIN_FAIL="migrate:after_patches")[0] == 76
    read_until(child, "revision 4 has begun its work")
    assert fleet.record("migrate", "4")["notes"]["changed"] == "1"
    with connect(f"file://{fleet.sites}/.frappe_bootstrap") as coordinator:
        assert watch.newer(coordinator.markers("frappe/s1").view().records, "registry/image:1", 1) == "4"
    eventually(lambda: said(fleet).get("state") == "unready", within=60, what="unready")
    child.terminate()
    child.communicate(timeout=LIMIT)


def test_a_newer_revision_stops_the_command_where_that_is_asked_for(fleet: Fleet) -> None:
    """ON_UPGRADE=stop: it gets SIGTERM and its own time; 87 says why the container ended."""
    child = fleet.start(sys.executable, "-c", LISTENER, **SUPERVISED, ON_UPGRADE="stop")
    assert child.stdout
    assert child.stdout.readline() == "up True\n"
    begin(fleet, "migrate", "2")
    assert child.stdout.readline() == "SIGTERM\n"
    assert said(fleet)["state"] == "stopping"
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 87, err


def test_the_database_tells_of_a_newer_revision_whose_records_are_elsewhere() -> None:
    """Point 14: a leader of another volume or marker store is known by what it wrote into the database."""
    old, new = record.Revision("1", token=5), record.Revision("2", token=8)
    assert watch.newer_in_database(record.SiteRecord(), "1", 5) == ""
    assert watch.newer_in_database(record.SiteRecord(revision=old), "1", 5) == ""
    assert watch.newer_in_database(record.SiteRecord(revision=new), "1", 5) == "2"
    assert watch.newer_in_database(record.SiteRecord(revision=new), "1", 8) == ""
    begun = record.SiteRecord(revision=old, migrating=record.Migrating("3", token=9))
    assert watch.newer_in_database(begun, "1", 5) == "3"


def test_what_was_refused_or_only_configured_is_no_newer_revision() -> None:
    """It has changed nothing that an older revision would notice, and neither has one that is still in its hook."""
    made = MarkerRecord("migrate", "2", MarkerState.INTERRUPTED, token=6, notes={"changed": "1", "maintenance": "{}"})
    assert watch.newer((made,), "1", 5) == "2"
    for notes in ({"changed": "1"}, {"changed": "1", "maintenance": ""}, {"maintenance": "{}"}):
        for state in MarkerState:
            assert watch.newer((msgspec.structs.replace(made, notes=notes, state=state),), "1", 5) == "2"
    for notes in ({}, {"maintenance": ""}):
        undone = msgspec.structs.replace(made, notes=notes)
        for state in MarkerState:
            told = watch.newer((msgspec.structs.replace(undone, state=state),), "1", 5)
            assert told == ("2" if state is MarkerState.DONE else "")
    for other in (
        {"token": 5},
        {"revision": "1"},
        {"step": "config"},
        {"state": MarkerState.FAILED, "verdict": Verdict.REFUSED},
    ):
        assert watch.newer((msgspec.structs.replace(made, **other),), "1", 5) == ""


def test_a_watcher_that_dies_is_started_again(fleet: Fleet) -> None:
    """It is a process of its own: killing it neither ends the command nor blinds us for long."""
    child = fleet.start("sleep", "600", **SUPERVISED)
    read_until(child, "starting sleep")

    def watchers() -> list[int]:
        """Return the child processes that watch."""
        return [
            process.pid
            for process in psutil.Process(child.pid).children()
            if "frappe_bootstrap.watch" in process.cmdline()
        ]

    eventually(lambda: len(watchers()) == 1, within=30, what="a watcher")
    (first,) = watchers()
    os.kill(first, signal.SIGKILL)
    begin(fleet, "migrate", "2")
    read_until(child, "revision 2 has begun its work")
    (second,) = watchers()
    assert second != first
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=LIMIT)
    eventually(lambda: not psutil.pid_exists(second), within=30, what="the end of the watcher")


def test_a_follower_never_leads_and_serves_when_another_has_done_the_work(fleet: Fleet) -> None:
    """Point 26: it needs no secret of root; alone it ends with 124."""
    follow = {"BOOTSTRAP_ROLE": "follow", "DB_ROOT_PASS": "", "ADMIN_PASS": ""}
    code, _, err = fleet.run("echo", "serving", **follow, BOOT_TIMEOUT="1")
    assert code == 124, err
    assert fleet.commands() == {}
    follower = fleet.start("echo", "serving", **follow)
    read_until(follower, "waiting")
    assert fleet.run()[0] == 0
    out, err = follower.communicate(timeout=LIMIT)
    assert (follower.returncode, out, done_steps(err)) == (0, "serving\n", [])


def test_once_ends_with_0_and_starts_no_command(fleet: Fleet) -> None:
    """Point 26: a Job, an init container, the configurator of compose."""
    code, out, err = fleet.run("echo", "serving", BOOTSTRAP_ROLE="once")
    assert (code, out) == (0, ""), err
    assert fleet.record("ready")["state"] == "done"
    code, out, _ = fleet.run("echo", "serving", BOOTSTRAP_ROLE="once")
    assert (code, out) == (0, "")
    assert fleet.run("echo", BOOTSTRAP_ROLE="sometimes")[0] == 78


@pytest.mark.parametrize("signals", [1, 2])
def test_a_step_may_be_finished_before_a_signal_ends_the_replica(fleet: Fleet, tmp_path: Path, signals: int) -> None:
    """Hazard 19, point 25: an hour-long ALTER does not start again at every drain; a second signal aborts at once."""
    gate = Gate(tmp_path, "migrate:locked")
    child = fleet.start(**gate.environ, STOP_POLICY="finish")
    gate.wait()
    for _ in range(signals):
        child.terminate()
        time.sleep(0.3)
    if signals == 1:
        assert fleet.record("migrate")["state"] == "in progress"
        gate.open()
    _, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 128 + signal.SIGTERM, err
    assert fleet.record("migrate")["state"] == ("done" if signals == 1 else "interrupted")
    assert fleet.record("apps") == {}


def test_finishing_a_step_has_an_end_too(fleet: Fleet, tmp_path: Path) -> None:
    """STOP_GRACE: then it is aborted as by default."""
    gate = Gate(tmp_path, "migrate:locked")
    child = fleet.start(**gate.environ, STOP_POLICY="finish", STOP_GRACE="0.5")
    gate.wait()
    child.terminate()
    child.communicate(timeout=LIMIT)
    assert child.returncode == 128 + signal.SIGTERM
    assert fleet.record("migrate")["state"] == "interrupted"


def test_a_failure_stays_on_the_page_for_a_while_and_a_signal_ends_that(fleet: Fleet) -> None:
    """FAILURE_PAGE_SECS: who looks sees why; the exit code is that of the failure, and nobody is held up by a stop."""
    port = str(free_port())
    show = {"FAILURE_PAGE_SECS": "600", "WAITING_ROOM_PORT": port, "STANDIN_FAIL": "migrate:after_patches"}
    child = fleet.start("echo", "serving", **show)

    def page() -> str:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
            connection.request("GET", "/app", headers={"Accept": "text/html"})
            return connection.getresponse().read().decode()
        return ""

    eventually(lambda: "· failed</p>" in page(), within=60, what="the page of the failure")
    assert "giving up (frappe-bootstrap retry s1 clears it)." in page()
    assert "stand-in failure at migrate:after_patches" in page()
    child.terminate()
    out, err = child.communicate(timeout=LIMIT)
    assert (child.returncode, out) == (76, ""), err
