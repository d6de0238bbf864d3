"""What one container owes its surroundings: signals, orphans, grace, probes, secrets, one scheduler, a quick start."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

from coordinate.testing import eventually
from tests.image import engine
from tests.image.replicas import CANARIES, STOP, Replica

if TYPE_CHECKING:
    from tests.image.replicas import Volume

GATE = "/standin/gate"
PAUSED = {"STANDIN_PAUSE": f"migrate:doctypes@frappe*1={GATE}"}
# Loses a child to process 1 at every turn, says which signals it hears, and ends in its own time.
COMMAND = """
trap 'echo heard HUP' HUP
trap 'echo heard TERM; sleep 1; exit 7' TERM
echo up
while :; do (sleep 0.1 &); sleep 0.2; done
"""
# The entrypoint, with a watch on each question to the database: how long it took.
WATCHED = """
import time
from frappe_bootstrap import bench, cli, reporting
ask = bench.Bench._ask
def watched(*args, **options):
    began = time.time()
    try:
        return ask(*args, **options)
    finally:
        with open("/standin/asked", "a") as file:
            file.write(f"{began} {time.time()}\\n")
bench.Bench._ask = watched
event = reporting.Reporter.event
def noted(self, what):
    if what.kind == "leading":
        with open("/standin/busy", "w") as file:
            file.write(str(time.process_time()))
    event(self, what)
reporting.Reporter.event = noted
cli.main([])
"""
# What any program of some size imports: how fast the processor is now, with whatever else runs beside it.
REFERENCE = """
import time
began = time.process_time()
import argparse, asyncio, email.mime.multipart, http.server, json, logging, subprocess, unittest
import urllib.request, xml.dom.minidom
with open("/standin/reference", "w") as file:
    file.write(str(time.process_time() - began))
"""
LEASE_WITHIN = 4.0
"""Times the reference, which takes 50 ms on a processor that has nothing else to do: 200 ms."""
QUICK = {"MAINTENANCE_WAIT_SECS": "0"}


def _pair(shared: Volume) -> tuple[Replica, Replica]:
    """Return a leader in the middle of its migration and one that waits for it."""
    image = engine.build("v1")
    replicas = [Replica(shared, image, **PAUSED) for _ in range(2)]
    eventually(lambda: shared.count("migrate:doctypes") > 0, within=60, what="the migration")
    found: dict[str, Replica] = {}

    def known() -> bool:
        found.update({replica.state(): replica for replica in replicas})
        return {"leading", "waiting"} <= set(found)

    eventually(known, within=30, what="one that leads and one that waits")
    return found["leading"], found["waiting"]


def _said(replica: Replica, question: str) -> str:
    return engine.podman("exec", replica.name, "frappe-bootstrap", question, check=False).split(":")[0]


def test_waiting_and_leading_it_lives_is_not_ready_and_stops_within_the_grace(shared: Volume) -> None:
    """143 for both; nothing of the leader's step lives on, and a later container finishes the work."""
    leader, follower = _pair(shared)
    for replica in (leader, follower):
        assert [_said(replica, "live"), _said(replica, "ready")] == ["yes", "no"]
    for replica in (follower, leader):
        seconds, code = replica.stop()
        assert (seconds < STOP, code) == (True, 143), replica.log()
    (shared.folder / "standin" / "gate").touch()
    last = Replica(shared, engine.build("v1")).wait_until_ready()
    assert [_said(last, "live"), _said(last, "ready")] == ["yes", "yes"]
    assert shared.count("new-site:end") == 1


def test_as_process_1_it_forwards_signals_reaps_orphans_and_leaves_the_end_to_the_command(shared: Volume) -> None:
    """Read-only root, random user, no capability."""
    replica = Replica(shared, engine.build("v1"), "bash", "-c", COMMAND).wait_until("serving")
    eventually(lambda: "up\n" in replica.log(), within=30, what="the command")
    engine.podman("kill", "--signal", "HUP", replica.name)
    eventually(lambda: "heard HUP" in replica.log(), within=10, what="the signal")
    states = replica.exec("bash", "-c", "cat /proc/[0-9]*/stat 2>/dev/null")
    assert re.search(r"^1 \(frappe-bootstra", states, re.MULTILINE), states
    # A child that ends in this instant is dead until we have looked; ten turns leave no ten dead.
    assert len(re.findall(r"\) Z ", states)) <= 1, states
    assert replica.exec("id", "-u").strip() == "23456"
    assert "Read-only" in engine.podman("exec", replica.name, "touch", "/home/frappe/x", check=False)
    seconds, code = replica.stop()
    assert (1 < seconds < STOP, code) == (True, 7)


def test_no_secret_is_in_the_log_the_environment_or_the_records(shared: Volume) -> None:
    """Those of the site are in its own configuration, where the framework wants them, and nowhere else."""
    replica = Replica(shared, engine.build("v1")).wait_until_ready()
    shown = replica.exec("bash", "-c", "cat /proc/[0-9]*/{environ,cmdline}")
    assert "SITE=shop.localhost" in shown
    places = {"environment": shown, "log": replica.log(), "inspect": engine.podman("inspect", replica.name)}
    for path in (shared.folder / "sites").rglob("*"):
        if path.is_file() and path.name != "site_config.json":
            places[str(path)] = path.read_text(errors="replace")
    assert any("frappe_bootstrap" in name for name in places)
    for name, text in places.items():
        assert not [canary for canary in CANARIES if canary in text.encode()], name


def test_of_two_replicas_one_runs_the_scheduler_and_the_other_takes_over(shared: Volume) -> None:
    """The list of processes has ``coordinate run frappe/bench/scheduler -- bench schedule``."""
    logs = [f"events-{number}" for number in range(2)]
    replicas = [Replica(shared, engine.build("v1"), STANDIN_LOG=f"/standin/{log}", COORDINATE_TTL="5") for log in logs]

    def ticks() -> list[int]:
        """Return how often each one's scheduler has ticked."""
        paths = [shared.folder / "standin" / log for log in logs]
        # A replica whose bench has had nothing to do yet has no log.
        texts = [path.read_text() if path.exists() else "" for path in paths]
        return [text.count('"schedule:tick"') for text in texts]

    for replica in replicas:
        replica.wait_until_ready()
    eventually(lambda: max(ticks()) > 5, within=30, what="a scheduler")
    at_work, idle = (0, 1) if ticks()[0] else (1, 0)
    assert ticks()[idle] == 0
    replicas[at_work].kill()
    eventually(lambda: ticks()[idle] > 0, within=30, what="the other scheduler")


def test_from_the_start_to_the_lease_it_takes_no_longer_than_200_milliseconds(shared: Volume) -> None:
    """Point 29: without the questions to the database, which are the bench Python's; the best of five starts.

    What is limited is the time of the processor, in units of what it does in that time now: with other tests beside it,
    the wall clock says how busy they are, and a processor is slower, too. All are left among the artefacts.
    """
    asked, began = shared.folder / "standin" / "asked", shared.folder / "standin" / "began"
    (shared.folder / "standin" / "watched.py").write_text(WATCHED)
    (shared.folder / "standin" / "reference.py").write_text(REFERENCE)
    busy, needed, reference = [], [], []
    for number in range(5):
        asked.unlink(missing_ok=True)
        python = "/opt/coordinate/bin/python"
        start = f"{python} /standin/reference.py; date +%s.%N >/standin/began; exec {python} /standin/watched.py"
        options = ("--entrypoint=sh",)
        replica = Replica(shared, engine.build("v1"), "-c", start, options=options, IMAGE_REV=f"r{number}", **QUICK)
        assert replica.exit_code() == 0, replica.log()
        (when,) = re.findall(r"^(\S+) INFO .* leading$", replica.log(), re.MULTILINE)
        leading = datetime.fromisoformat(when).timestamp()
        spans = [[float(word) for word in line.split()] for line in asked.read_text().splitlines()]
        questions = [end - start for start, end in spans if end < leading]
        assert 1 <= len(questions) <= 2
        busy.append(float((shared.folder / "standin" / "busy").read_text()))
        reference.append(float((shared.folder / "standin" / "reference").read_text()))
        needed.append(leading - float(began.read_text()) - sum(questions))
    found = {"processor": busy, "wall": needed, "reference": reference}
    (engine.artefacts() / "seconds-to-the-lease.json").write_text(json.dumps(found))
    assert 0.1 < min(busy) / min(reference) <= LEASE_WITHIN, found
