"""What an operator was promised, on fleets of real processes."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from coordinate.testing import eventually
from tests.acceptance.fleet import SECRETS, SITE, Fleet
from tests.servers import redis_server

STEPS = ("config", "site", "migrate", "apps", "assets", "ready")
# Kills the bootstrap above it, as a step does that takes its whole container along; but not before the step's output
# is on record, which takes up to a second.
KILL_CONTAINER = """#!{python}
import os, pathlib, signal, time
until = time.monotonic() + 60
while time.monotonic() < until:
    folder = pathlib.Path("{records}")
    token = max(path.suffix for path in folder.rglob("claim.*"))
    if any(b"Migrating" in path.read_bytes() for path in folder.rglob(f"m.*{{token}}.*")):
        break
    time.sleep(0.05)
pid = os.getpid()
while pid > 1:
    words = open(f"/proc/{{pid}}/cmdline", "rb").read().split(b"\\0")
    if b"frappe_bootstrap" in words:
        os.kill(pid, signal.SIGKILL)
        break
    pid = int(open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[1])
signal.pause()
"""


def test_three_replicas_boot_cold_on_files(tmp_path: Path, redis_port: int) -> None:
    """One creates, migrates and installs, everybody serves; the legacy files are there; a second boot runs nothing."""
    with Fleet(tmp_path, 3, redis_port) as fleet:
        assert fleet.boot() == [0, 0, 0], fleet.told()
        assert all(container.served.exists() for container in fleet.containers)
        for step in STEPS:
            record = fleet.markers()[step]
            assert (record["state"], record["attempts"]) == ("done", 1), record
        assert fleet.count("new-site:end") == 1
        assert fleet.count("install-app:end") == 1
        for name in (".migrated_v1", ".apps_installed_v1", ".assets_built_v1", ".ready_v1"):
            assert (fleet.sites / name).exists()
        before = len(fleet.history())
        assert fleet.boot() == [0, 0, 0], fleet.told()
        assert len(fleet.history()) == before


def test_three_replicas_boot_cold_with_the_lease_on_redis(tmp_path: Path, redis_port: int) -> None:
    """The lease on a real server, given by the variables of the original image, the markers on the volume."""
    with redis_server(tmp_path) as server:
        with server.client() as client:
            client.config_set("requirepass", SECRETS["REDIS_PASS"])
        host, port = re.findall(r"([\w.]+):(\d+)", server.url.rpartition("@")[2])[0]
        lock = {"LOCK_REDIS_HOST": host, "LOCK_REDIS_PORT": port, "LOCK_REDIS_PASS": SECRETS["REDIS_PASS"]}
        with Fleet(tmp_path, 3, redis_port, COORDINATE_URL="", **lock) as fleet:
            assert fleet.boot() == [0, 0, 0], fleet.told()
            assert fleet.count("new-site:end") == 1


def test_a_new_revision_migrates_once(tmp_path: Path, redis_port: int) -> None:
    """The site stays, its migration runs for the new revision."""
    with Fleet(tmp_path, 3, redis_port) as fleet:
        assert fleet.boot() == [0, 0, 0], fleet.told()
        migrations = fleet.count("migrate:end")
        fleet.environ["IMAGE_REV"] = "registry.example/shop:v2"
        assert fleet.boot() == [0, 0, 0], fleet.told()
        assert fleet.count("migrate:end") == migrations + 1
        assert fleet.count("new-site:end") == 1


@pytest.mark.parametrize(
    "point", ["migrate:before_migrate", "migrate:doctypes@frappe", "migrate:after_migrate", "install-app:after_install"]
)
def test_a_killed_leader_is_replaced_and_everybody_serves(tmp_path: Path, redis_port: int, point: str) -> None:
    """SIGKILL in the middle: what it started dies with it, the next one finishes, each step is done once.

    Hazards 12 and 13.
    """
    gate = tmp_path / "gate"
    with Fleet(tmp_path, 3, redis_port, STANDIN_PAUSE=f"{point}*1={gate}", STANDIN_SPAWN="setsid") as fleet:
        for container in fleet.containers:
            container.start()
        name = point.partition("@")[0]
        eventually(lambda: fleet.count(name) > 0, within=120, what=point)
        leader = fleet.leader()
        beat = tmp_path / "counters" / "heartbeat"
        os.kill(leader.pid, signal.SIGKILL)
        killed, before = time.monotonic_ns(), {line["pid"] for line in fleet.history()}
        gate.touch()
        codes = [container.wait() for container in fleet.containers]
        assert sorted(codes) == [-9, 0, 0], fleet.told()
        assert {record["state"] for record in fleet.markers().values()} == {"done"}
        assert leader.start().wait() == 0, fleet.told()
        # The next leader's first command: by then nothing of the dead one may live.
        again = min(int(str(line["ns"])) for line in fleet.history() if line["pid"] not in before)
        early = [line.split() for line in (beat.read_text().splitlines() if beat.exists() else [])]
        starters = {pid for pid, when in early if int(when) < killed}
        late = [line for line in early if line[0] in starters and int(line[1]) >= again]
        assert late == []


def test_sigterm_in_the_middle_of_a_step_hands_on_at_once(tmp_path: Path, redis_port: int) -> None:
    """143, the step recorded as interrupted, the next replica goes on without waiting for any ttl."""
    gate = tmp_path / "gate"
    knob = f"migrate:doctypes@frappe*1={gate}"
    with Fleet(tmp_path, 2, redis_port, STANDIN_PAUSE=knob, LOCK_RENEW_TTL_SECS="600") as fleet:
        for container in fleet.containers:
            container.start()
        eventually(lambda: fleet.count("migrate:doctypes") > 0, within=120, what="the migration")
        leader = fleet.leader()
        os.kill(leader.pid, signal.SIGTERM)
        assert leader.wait() == 143, fleet.told()
        (other,) = [container for container in fleet.containers if container is not leader]
        assert other.wait() == 0, fleet.told()
        record = fleet.markers()["migrate"]
        assert (record["state"], record["failures"], record["crashes"]) == ("done", 0, 0)


def test_sigterm_while_waiting_ends_at_once(tmp_path: Path, redis_port: int) -> None:
    """A follower and a replica that waits for its servers both end with 143."""
    down = tmp_path / "database" / "down"
    with Fleet(tmp_path, 1, redis_port) as fleet:
        down.touch()
        (container,) = fleet.containers
        container.start()
        eventually(lambda: "Can't connect" in container.text(), within=120, what="the reason")
        os.kill(container.pid, signal.SIGTERM)
        assert container.wait() == 143, fleet.told()


def test_servers_that_are_down_are_named_and_end_with_69(tmp_path: Path, redis_port: int) -> None:
    """Hazard 14: redis or the database: waits, says why, and never calls itself a follower."""
    with Fleet(tmp_path, 2, redis_port, WAIT_TIMEOUT="1.5") as fleet:
        assert fleet.boot(COORDINATE_URL="redis://127.0.0.1:1/0") == [69, 69], fleet.told()
        assert "127.0.0.1:1" in fleet.told()
        assert "leader" not in fleet.told()
        (tmp_path / "database" / "down").touch()
        assert fleet.boot() == [69, 69], fleet.told()
        assert "Can't connect" in fleet.told()


def test_bad_settings_are_all_reported_at_once(tmp_path: Path, redis_port: int) -> None:
    """78, each variable named, no secret shown."""
    bad = {"SITE": "", "DB_PORT": "tcp://10.0.0.1:3306", "DB_PASS": "CANARY'quote", "REDIS_CACHE_PORT": "many"}
    with Fleet(tmp_path, 1, redis_port) as fleet:
        assert fleet.boot(**bad) == [78]
        for variable in bad:
            assert variable in fleet.told()
        assert "CANARY" not in fleet.told()


def test_a_step_that_always_fails_stops_the_fleet(tmp_path: Path, redis_port: int) -> None:
    """Three failures over all replicas, 76 and the last lines for everybody; a reset allows another attempt."""
    with Fleet(tmp_path, 3, redis_port) as fleet:
        assert fleet.boot(STANDIN_FAIL="migrate:after_patches") == [76, 76, 76], fleet.told()
        record = fleet.markers()["migrate"]
        assert (record["state"], record["failures"]) == ("failed", 3)
        for container in fleet.containers:
            assert "after_patches" in container.text(), fleet.told()
        assert fleet.boot() == [76, 76, 76]
        fleet.coordinate("marker", "reset", f"frappe/{SITE}", "migrate", "v1")
        assert fleet.boot() == [0, 0, 0], fleet.told()


def test_a_step_that_always_kills_its_container_stops_the_fleet(tmp_path: Path, redis_port: int) -> None:
    """An orchestrator restarts what dies; after five crashes everybody ends with 76 and the step's last lines."""
    script = tmp_path / "kill-container"
    script.write_text(KILL_CONTAINER.format(python=sys.executable, records=tmp_path / "sites" / ".frappe_bootstrap"))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with Fleet(
        tmp_path, 2, redis_port, STANDIN_DIE_CALL=f"migrate:after_patches={script}", STANDIN_SCALE="0.3"
    ) as fleet:
        for container in fleet.containers:
            container.start()
        deadline = time.monotonic() + 400
        restarts = 0
        while time.monotonic() < deadline:
            codes = [container.process.poll() for container in fleet.containers if container.process]
            if all(code == 76 for code in codes):
                break
            for container, code in zip(fleet.containers, codes, strict=True):
                if code == -signal.SIGKILL:
                    restarts += 1
                    container.start()
            time.sleep(0.05)
        assert [container.wait(1) for container in fleet.containers] == [76, 76], fleet.told()
        assert restarts >= 4
        record = fleet.markers()["migrate"]
        assert (record["state"], record["crashes"]) == ("failed", 5)
        assert "Updating DocTypes" in str(record["detail"]) or "Migrating" in str(record["detail"]), record


def test_ten_replicas_boot_warm_ten_times(tmp_path: Path, redis_port: int) -> None:
    """The original image lost 13 of 30 to its config race; ours loses none."""
    with Fleet(tmp_path, 10, redis_port) as fleet:
        assert fleet.boot() == [0] * 10, fleet.told()
        for _ in range(10):
            assert fleet.boot() == [0] * 10, fleet.told()


def test_an_empty_volume_with_a_live_database_is_refused(tmp_path: Path, redis_port: int) -> None:
    """Nothing is dropped, nothing is created; the code is ours."""
    with Fleet(tmp_path, 1, redis_port) as fleet:
        assert fleet.boot() == [0], fleet.told()
        aside = tmp_path / "aside"
        fleet.sites.rename(aside)
        fleet.sites.mkdir()
        assert fleet.boot() == [81], fleet.told()
        assert fleet.count("new-site:end") == 1


def _canaries(text: bytes) -> set[bytes]:
    return set(re.findall(rb"CANARY(?:root|db|admin|redis)", text))


def test_no_secret_shows_anywhere(tmp_path: Path, redis_port: int) -> None:
    """Not in any command line while it runs, in logs, markers, or the environment of the served command."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.update(_canaries(path.read_bytes()))
                except OSError:
                    continue

    with Fleet(tmp_path, 3, redis_port) as fleet:
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            fleet.boot(STANDIN_FAIL="migrate:after_patches*1")
            codes = fleet.boot()
        finally:
            over.set()
            watcher.join()
        assert codes == [0, 0, 0], fleet.told()
        assert seen == set()
        places = [container.log for container in fleet.containers] + [
            container.served for container in fleet.containers
        ]
        places += [path for path in (fleet.sites / ".frappe_bootstrap").rglob("*") if path.is_file()]
        places += [path for path in tmp_path.glob("replica-*/logs/*") if path.is_file()]
        places += [path for path in (tmp_path / "leases").rglob("*") if path.is_file()]
        for place in places:
            assert _canaries(place.read_bytes()) == set(), place
