"""Three replicas of one Frappe image start at the same moment; the one that leads is killed in mid-migration.

    script/demo [--url redis://...] [--keep]

Real processes, real kills, the real bootstrap; only Frappe, its database and its Redis are stand-ins, so nothing has
to be installed. Ends with 0 when everything happened as told, with 1 and the replicas' output when not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import runpy
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screen import Screen
from stage import Moment, Replica, adopt_orphans, alive, end_everything

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
STANDIN = ROOT / "examples" / "standin_bench"
SITE = "shop.localhost"
APP = "demo_app"
REVISION = "v1"
PATIENCE = 55.0
STORY = {
    "new-site:begin": "leads: creates the site",
    "new-site:doctypes": "... half of its tables are there",
    "new-site:end": "the site exists",
    "install-app:begin": "installs {detail}",
    "migrate:begin": "leads: migrates the database",
    "migrate:doctypes": "... synchronises the tables of {detail}",
    "migrate:end": "the migration is complete",
    "build:begin": "builds the assets",
    "build:end": "the assets are built",
}
HALF_WAY = "52"
KILL_AT = ("migrate:doctypes", "frappe")


class Failed(Exception):
    """Something that the demo promises did not happen."""


class Demo:
    """The play: a stage, three replicas, and what has been seen so far."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder = folder
        self.sites = folder / "sites"
        self.url = url or f"file://{self.sites}/.coordinate"
        self.screen = Screen()
        self.seen: list[Moment] = []
        self.leader = ""
        self._namespace = "coordinate" if url is None else f"demo-{secrets.token_hex(4)}"
        self.replicas: dict[str, Replica] = {}

    # Setting up

    def set_up(self) -> None:
        """Make the shared volume, three benches, the database and the Redis that Frappe wants."""
        tools: dict[str, Any] = runpy.run_path(str(STANDIN / "make_bench.py"))
        password = secrets.token_hex(12)
        database = tools["make_database"](self.folder / "database", password)
        environ = self._environment(database, password, self._start_redis())
        for number in (1, 2, 3):
            name = f"replica-{number}"
            bench = tools["make_bench"](self.folder / name, [APP], sites=self.sites)
            self.replicas[name] = Replica(name, self.folder, bench, environ)

    def _start_redis(self) -> str:
        port = self.folder / "redis.port"
        command = [sys.executable, str(STANDIN / "redis_standin.py"), "--port", "0", "--port-file", str(port)]
        subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.until("Frappe's Redis", port.exists)
        return port.read_text().strip()

    def _environment(self, database: Path, password: str, redis_port: str) -> dict[str, str]:
        passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        image = {
            "SITE": SITE,
            "MAINTENANCE_WAIT_SECS": "0",
            "IMAGE_REV": REVISION,
            "APPS": APP,
            "DB_TYPE": "mariadb",
            "DB_HOST": "127.0.0.1",
            "DB_PORT": "3306",
            "DB_ROOT_USER": "root",
            "DB_ROOT_PASS": password,
            "ADMIN_PASS": secrets.token_hex(12),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PASS": "",
            "REDIS_CACHE_PORT": redis_port,
            "REDIS_QUEUE_PORT": redis_port,
            "REDIS_SOCKETIO_PORT": redis_port,
            "COORDINATE_URL": self.url,
            "COORDINATE_NAMESPACE": self._namespace,
            "COORDINATE_TTL": "6",
        }
        point, detail = KILL_AT
        standin = {
            "STANDIN_DB_DIR": str(database),
            "STANDIN_DIR": str(self.folder / "shared"),
            "STANDIN_SCALE": "0.6",
            "STANDIN_PAUSE": f"{point}@{detail}*1={self.folder / 'never'}",
        }
        return passed | image | standin

    # Watching

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Tell the story until a condition holds."""
        while not condition():
            self._follow()
            if self.screen.elapsed > PATIENCE:
                message = f"this did not happen in time: {what}"
                raise Failed(message)
            time.sleep(0.02)
        self._follow()

    def _follow(self) -> None:
        for moment in sorted(moment for replica in self.replicas.values() for moment in replica.news()):
            self.seen.append(moment)
            text = STORY.get(moment.point)
            # Every member runs the same commands: who runs one leads.
            if moment.point.endswith(":begin"):
                self.leader = moment.replica
            if text and (moment.point != "new-site:doctypes" or moment.detail == HALF_WAY):
                self.screen.tell(moment.replica, text.format(detail=moment.detail))
        parts = []
        for replica in self.replicas.values():
            code = replica.ended()
            if code not in (None, -signal.SIGKILL):
                message = f"{replica.name} ended with {code}"
                raise Failed(message)
            state = "dead" if code is not None else "leads" if replica.name == self.leader else "waits"
            parts.append(f"{replica.name} {state}")
        self.screen.status(" · ".join(parts))

    def count(self, point: str, *, replica: str = "", since: int = 0) -> int:
        """Return how often a point was passed."""
        return sum(
            moment.point == point and replica in ("", moment.replica) and moment.ns > since for moment in self.seen
        )

    def token(self) -> int:
        """Return the token that the marker store knows of: that of the latest leader."""
        command = [sys.executable, "-m", "coordinate", "--url", self.url]
        command += ["--markers-url", f"file://{self.sites}/.frappe_bootstrap", "status", "--json"]
        environ = {**os.environ, "COORDINATE_NAMESPACE": self._namespace}
        answer = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
        if answer.returncode:
            message = f"coordinate status: {answer.stderr.strip()}"
            raise Failed(message)
        claims: dict[str, Any] = json.loads(answer.stdout)["claims"]
        return max((claim["token"] for claim in claims.values() if claim), default=0)

    # The play

    def play(self) -> None:
        """Perform all acts."""
        screen = self.screen
        screen.heading("Act 1: three replicas of one image start at the same moment, on an empty volume")
        screen.restart()
        for replica in self.replicas.values():
            replica.start(STANDIN / "web.py", SITE)
            screen.tell(replica.name, "starts")
        point, detail = KILL_AT
        self.until("a leader in mid-migration", lambda: any(m[3:5] == (point, detail) for m in self.seen))
        victim = next(moment for moment in self.seen if moment[3:5] == (point, detail))

        screen.heading(f"Act 2: {victim.replica} is killed in mid-migration")
        self._kill(victim)

        screen.heading("Act 3: the killed one comes back, and everybody serves")
        self._serve(victim.replica)
        self._check()

    def _kill(self, victim: Moment) -> None:
        before = self.token()
        self.screen.tell("demo", f"{victim.replica} leads, with fencing token {before}")
        self.screen.bad("demo", f"kill -9 {victim.replica}")
        killed = time.monotonic_ns()
        self.replicas[victim.replica].kill()
        self.until("the end of the dead leader's migration", lambda: not alive(victim.pid))
        gone = time.monotonic_ns()
        self.screen.good("demo", f"its migration, another process, died with it ({(gone - killed) / 1e6:.0f} ms)")
        self.until("a takeover", lambda: self.count("migrate:begin", since=killed) > 0)
        again = next(moment for moment in self.seen if moment.point == "migrate:begin" and moment.ns > killed)
        if again.replica == victim.replica:
            message = "the dead replica took over from itself"
            raise Failed(message)
        self.screen.good(again.replica, f"took over {(again.ns - killed) / 1e9:.2f} s after the kill")
        after = self.token()
        self.screen.good("demo", f"{again.replica} leads, with fencing token {after}: {before} is refused from now on")
        if after <= before:
            message = f"the token did not grow: {before}, then {after}"
            raise Failed(message)
        self.until("the end of the migration", lambda: self.count("migrate:end") > 0)

    def _serve(self, victim: str) -> None:
        self.replicas[victim].start(STANDIN / "web.py", SITE)
        self.screen.tell(victim, "starts again, as its platform would have it")
        waiting = dict(self.replicas)

        def served() -> bool:
            for name, replica in list(waiting.items()):
                if answer := replica.ping(SITE):
                    self.screen.good(name, f"serves: GET /api/method/ping -> 200 {answer['message']}")
                    del waiting[name]
            return not waiting

        self.until("all replicas serving", served)

    def _check(self) -> None:
        """Compare what happened with what has to be."""
        facts = {
            "the site was created once": self.count("new-site:begin") == self.count("new-site:end") == 1,
            "only the migration that was killed is incomplete": (
                self.count("migrate:begin") == self.count("migrate:end") + 1
            ),
            "the app was installed once": self.count("install-app:begin") == self.count("install-app:end") == 1,
            "at no moment two commands worked on the site": self._one_after_the_other(),
            f".ready_{REVISION} is there for probes": (self.sites / f".ready_{REVISION}").exists(),
        }
        self.screen.heading("What the replicas' own logs say")
        for text, holds in facts.items():
            (self.screen.good if holds else self.screen.bad)("demo", f"{'yes' if holds else 'NO'}: {text}")
        if not all(facts.values()):
            message = "the logs tell another story"
            raise Failed(message)

    def _one_after_the_other(self) -> bool:
        """Return whether all that a command reported lies before all that the next one did."""
        pids = [moment.pid for moment in sorted(self.seen)]
        turns = sum(left != right for left, right in itertools.pairwise(pids)) + 1
        return turns == len(set(pids))

    def explain(self) -> None:
        """Print the end of each replica's output."""
        for replica in self.replicas.values():
            if replica.output.exists():
                lines = replica.output.read_text(errors="replace").splitlines()[-15:]
                print(f"\n--- {replica.name}, last lines", *lines, sep="\n", file=sys.stderr)


def main() -> int:
    """Perform, and leave nothing behind."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="lease store of the replicas; default: files on their shared volume")
    parser.add_argument("--keep", action="store_true", help="keep the folder with benches and logs")
    options = parser.parse_args()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    adopt_orphans()
    parent = ROOT / ".demo"
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    demo = Demo(folder, options.url)
    try:
        demo.set_up()
        demo.play()
    except Failed as failure:
        demo.screen.bad("demo", f"FAILED: {failure}")
        demo.explain()
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        end_everything()
        if options.keep:
            print(f"\nkept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\nEverything happened as told, in {demo.screen.elapsed:.1f} s; nothing is left running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
