"""A fleet of containers, as far as processes can be: a bench each, one shared sites folder, one database, one Redis."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.standin.fleet import EXAMPLE, make_bench

SITE = "shop.localhost"
SECRETS = {
    "DB_ROOT_PASS": "CANARYroot@:/#%1",
    "DB_PASS": "CANARYdb+&=2",
    "ADMIN_PASS": "CANARYadmin <3>",
    "REDIS_PASS": "CANARYredis@:/#%4",
}
BOOTSTRAP = [sys.executable, "-m", "frappe_bootstrap"]


class Container:
    """One replica: its bench and its process."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name
        self.bench = make_bench.make_bench(fleet.folder / name, ["demo_app"], sites=fleet.sites, apps_txt=False)
        self.log = fleet.folder / f"{name}.log"
        self.served = fleet.folder / f"{name}.environ"
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def start(self, **env: str) -> Self:
        """Boot it; its command writes down its environment and when it began, and ends."""
        self.served.unlink(missing_ok=True)
        script = f"env > {self.served}.new; date +%s.%N >> {self.served}.new; mv {self.served}.new {self.served}"
        environ = self.fleet.environ | {
            "BENCH_DIR": str(self.bench),
            "BOOTSTRAP_STATE_DIR": str(self.bench / "state"),
            "COORDINATE_HOLDER": self.name,
            **env,
        }
        self.started = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*BOOTSTRAP, "--", "sh", "-c", script],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """Return the pid of the bootstrap."""
        assert self.process is not None
        return self.process.pid

    def wait(self, within: float = 300.0) -> int:
        """Return its exit code."""
        assert self.process is not None
        return self.process.wait(within)

    def text(self) -> str:
        """Return what it logged."""
        return self.log.read_text() if self.log.exists() else ""

    def handed_over_after(self) -> float:
        """Return the seconds between its start and its command's."""
        return float(self.served.read_text().split()[-1]) - self.started


class Fleet:
    """Containers that share a volume."""

    def __init__(self, folder: Path, size: int, redis_port: int, **env: str) -> None:
        self.folder = folder
        self.sites = folder / "sites"
        self.events = folder / "events"
        database = make_bench.make_database(folder / "database", SECRETS["DB_ROOT_PASS"])
        passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environ = {
            **passed,
            **SECRETS,
            "REDIS_PASS": "",
            "SITE": SITE,
            "IMAGE_REV": "v1",
            "APPS": "demo_app",
            "DB_TYPE": "mariadb",
            "DB_HOST": "127.0.0.1",
            "DB_PORT": "3306",
            "DB_NAME": "shop",
            "DB_ROOT_USER": "root",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_CACHE_PORT": str(redis_port),
            "REDIS_QUEUE_PORT": str(redis_port),
            "REDIS_SOCKETIO_PORT": str(redis_port),
            "COORDINATE_URL": f"file://{folder}/leases",
            "LOCK_RENEW_TTL_SECS": "30",
            "LOCK_HEARTBEAT_SECS": "5",
            "WAIT_TIMEOUT": "120",
            "BOOT_TIMEOUT": "240",
            "MAINTENANCE_WAIT_SECS": "0",
            "STANDIN_DB_DIR": str(database),
            "STANDIN_DIR": str(folder / "counters"),
            "STANDIN_SCALE": "0.1",
            "STANDIN_LOG": str(self.events),
            **env,
        }
        (folder / "counters").mkdir(exist_ok=True)
        self.containers = [Container(self, f"replica-{number}") for number in range(size)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self.containers:
            if container.process is not None and container.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(container.pid, signal.SIGKILL)
                container.process.wait()

    def boot(self, within: float = 300.0, **env: str) -> list[int]:
        """Start all and return their exit codes."""
        for container in self.containers:
            container.start(**env)
        return [container.wait(within) for container in self.containers]

    def history(self) -> list[dict[str, object]]:
        """Return what the bench commands reported, in order."""
        # A line that has no end yet is still being written.
        lines = self.events.read_text().rpartition("\n")[0].splitlines() if self.events.exists() else []
        return sorted((json.loads(line) for line in lines), key=lambda line: line["ns"])

    def count(self, point: str) -> int:
        """Return how often a point was passed."""
        return sum(line["event"] == "point" and line["point"] == point for line in self.history())

    def leader(self) -> Container:
        """Return who runs a bench command: the ancestor of the newest one."""
        pid = int(str(self.history()[-1]["pid"]))
        pids = {container.pid: container for container in self.containers}
        while pid > 1 and pid not in pids:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pids[pid]

    def markers(self) -> dict[str, dict[str, object]]:
        """Return the records by step."""
        rows = json.loads(self.coordinate("marker", "list", "--json"))
        return {str(row["step"]): row for row in rows if row["revision"] == self.environ["IMAGE_REV"]}

    def coordinate(self, *arguments: str) -> str:
        """Run the command ``coordinate`` on the fleet's stores."""
        stores = {
            "COORDINATE_URL": self.environ["COORDINATE_URL"],
            "COORDINATE_MARKERS_URL": f"file://{self.sites}/.frappe_bootstrap",
        }
        command = [sys.executable, "-m", "coordinate", *arguments]
        return subprocess.run(command, env=self.environ | stores, check=True, capture_output=True, text=True).stdout

    def told(self) -> str:
        """Return all logs, for a failing test."""
        return "\n".join(f"--- {container.name}\n{container.text()}" for container in self.containers)


__all__ = ["EXAMPLE", "SECRETS", "SITE", "Container", "Fleet"]
