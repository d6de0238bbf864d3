"""Containers of the image on this host's network, their servers as processes, and the shipped front proxy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from coordinate.testing import eventually
from tests.image import engine
from tests.servers import free_port, redis_server
from tests.stacks.databases import ROOT_PASSWORD, mariadb, program
from tests.stacks.sentinel import sentinel_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.stacks.databases import Server
    from tests.stacks.sentinel import SentinelStack

SITE = "shop.localhost"
USER = "23456:0"
BENCH = "/home/frappe/frappe-bench"
SECRETS = {"DB_PASS": "CANARYdb+&=2", "ADMIN_PASS": "CANARYadmin <3>", "DB_ROOT_PASS": ROOT_PASSWORD}
CANARIES = tuple(value.encode() for value in SECRETS.values())
FRONT = engine.ROOT / "examples" / "frappe" / "front"
BOOT = 60.0
STOP = 10.0
"""Seconds: the usual grace of an orchestrator."""


@dataclass
class Volume:
    """What all containers share, and the servers they use."""

    folder: Path
    sentinel: SentinelStack
    database: Server
    redis_port: int
    names: list[str] = field(default_factory=list)

    def environ(self) -> dict[str, str]:
        """Return the environment of a container, without the ports of its own."""
        return {
            "SITE": SITE,
            "APPS": "demo_app",
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self.database.port),
            "DB_ROOT_USER": "root",
            "DB_NAME": "shop",
            **{f"{name}_FILE": f"/run/secrets/{name.lower()}" for name in (*SECRETS, "COORDINATE_URL")},
            "REDIS_HOST": "127.0.0.1",
            "REDIS_CACHE_PORT": str(self.redis_port),
            "REDIS_QUEUE_PORT": str(self.redis_port),
            "LOCK_RENEW_TTL_SECS": "10",
            "MAINTENANCE_WAIT_SECS": "2",
            "STANDIN_DIR": "/standin/counters",
            "STANDIN_LOG": "/standin/events",
            "STANDIN_SCALE": "0.1",
        }

    def history(self) -> list[dict[str, Any]]:
        """Return what the bench commands of all containers reported, in order."""
        path = self.folder / "standin" / "events"
        # A line that has no end yet is still being written.
        lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
        return sorted((json.loads(line) for line in lines), key=lambda line: int(line["ns"]))

    def count(self, point: str) -> int:
        """Return how often a point was passed."""
        return sum(line["point"] == point for line in self.history())


@contextlib.contextmanager
def volume(folder: Path) -> Iterator[Volume]:
    """Yield a volume with running servers; whatever container was made on it is gone afterwards."""
    for part in ("sites", "standin", "secrets", "redis", "database", "sentinel"):
        (folder / part).mkdir()
    for part in ("sites", "standin"):
        (folder / part).chmod(0o775)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis_server(folder / "redis"))
        database = stack.enter_context(mariadb(folder / "database"))
        sentinel = stack.enter_context(sentinel_stack(folder / "sentinel"))
        made = Volume(folder, sentinel, database, server.port)
        for name, value in {**SECRETS, "COORDINATE_URL": sentinel.url}.items():
            (folder / "secrets" / name.lower()).write_text(value)
        stack.callback(lambda: made.names and engine.podman("rm", "--force", "--time", "0", *made.names))
        yield made


class Slot(NamedTuple):
    """The ports of a replica: where the network of the host is everybody's, they take the place of an address."""

    web: int
    health: int

    @classmethod
    def free(cls) -> Self:
        """Return two that nobody uses."""
        return cls(free_port(), free_port())


class Replica:
    """One container: read-only root, random user, no capability, secrets as files."""

    def __init__(
        self,
        shared: Volume,
        image: str,
        *command: str,
        slot: Slot | None = None,
        options: Sequence[str] = (),
        **env: str,
    ) -> None:
        self.shared = shared
        self.web, self.health = slot or Slot.free()
        gunicorn = free_port()
        self.name = f"shop-{secrets.token_hex(4)}"
        ports = {"HTTP_PORT": self.web, "WAITING_ROOM_PORT": self.web, "HEALTH_PORT": self.health}
        environ = shared.environ() | {name: str(port) for name, port in ports.items()}
        environ |= {"GUNICORN_BIND": f"127.0.0.1:{gunicorn}", "POD_NAME": self.name, **env}
        folder = shared.folder
        mounts = {folder / "sites": f"{BENCH}/sites", folder / "standin": "/standin"}
        words = ["--name", self.name, "--user", USER, "--read-only", "--read-only-tmpfs=false", "--cap-drop=all"]
        words += ["--security-opt=no-new-privileges", "--no-healthcheck", f"--stop-timeout={STOP:g}"]
        words += [f"--tmpfs={path}:mode=1777,notmpcopyup" for path in ("/tmp", f"{BENCH}/config", f"{BENCH}/logs")]
        words += [f"--volume={source}:{target}" for source, target in mounts.items()]
        words += [f"--volume={folder / 'secrets'}:/run/secrets:ro"]
        words += [f"--env={name}={value}" for name, value in environ.items()]
        shared.names.append(self.name)
        self.started = time.time()
        engine.podman("run", "--detach", *words, *options, image, *command)

    def state(self) -> str:
        """Return what it says of itself on its health port; nothing: it does not answer."""
        with contextlib.suppress(OSError, ValueError):
            return str(self.status()["state"])
        return ""

    def status(self) -> dict[str, Any]:
        """Return ``/status.json``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/status.json", timeout=5) as answer:
            said: dict[str, Any] = json.load(answer)
            return said

    def ready(self) -> bool:
        """Return whether it says so and its site answers."""
        return self.state() == "serving" and ask(self.web).status == 200

    def wait_until(self, *states: str) -> Self:
        """Return when it is in one of the states."""
        self._wait(lambda: self.state() in states, " or ".join(states))
        return self

    def wait_until_ready(self) -> Self:
        """Return when it serves."""
        self._wait(self.ready, "ready")
        return self

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, but not for a container that has ended, and show what it said if it does not come true."""

        def come() -> bool:
            """Say whether it is so, of a container that runs."""
            if condition():
                return True
            # One that answers has not ended; the engine is slow to ask.
            assert self.state() or self._runs(), f"{self.name} has ended and is not {what}:\n{self.log()}"
            return False

        try:
            eventually(come, within=BOOT, what=f"{self.name}, which is {what}")
        except pytest.fail.Exception:
            pytest.fail(f"{self.name} is {self.state() or 'silent'}, not {what}:\n{self.log()}")

    def _runs(self) -> bool:
        return engine.podman("inspect", "--format", "{{.State.Running}}", self.name).strip() == "true"

    def log(self) -> str:
        """Return all it has said."""
        return engine.podman("logs", self.name, check=False)

    def kill(self) -> None:
        """End it as a crash would."""
        engine.podman("kill", "--signal", "KILL", self.name)

    def stop(self) -> tuple[float, int]:
        """Stop it as an orchestrator does; return how long that took, and its exit code."""
        before = time.monotonic()
        engine.podman("stop", self.name)
        return time.monotonic() - before, self.exit_code()

    def exit_code(self) -> int:
        """Return the exit code of the ended container."""
        return int(engine.podman("wait", self.name))

    def exec(self, *command: str) -> str:
        """Run a command in it."""
        return engine.podman("exec", self.name, *command)


@dataclass(frozen=True)
class Answer:
    """One answer, or the lack of one: then ``status`` is 0."""

    at: float
    status: int
    headers: dict[str, str]
    body: str

    @property
    def revision(self) -> str:
        """Return which revision it names."""
        with contextlib.suppress(ValueError):
            return str(json.loads(self.body)["revision"])
        return ""


def ask(port: int, path: str = "/api/method/ping", **headers: str) -> Answer:
    """Return the answer of a port."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": SITE, **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            status, said, body = answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        status, said, body = error.code, dict(error.headers), error.read()
    except OSError as error:
        status, said, body = 0, {}, repr(error).encode()
    said = {name.lower(): value for name, value in said.items()}
    return Answer(time.monotonic(), status, said, body.decode(errors="replace"))


class Front:
    """The shipped proxy, with the ports of our containers in the place of a service's name."""

    def __init__(self, folder: Path, slots: list[Slot]) -> None:
        self._folder = folder
        path = folder / "haproxy.cfg"
        path.write_text(self._configuration(slots))
        # A port that is ours before the proxy runs: nobody else gets it meanwhile, and visitors may come at once.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as door, (folder / "haproxy.log").open("ab") as log:
            self.port: int = door.getsockname()[1]
            environ = {**os.environ, "FRONT_DIR": str(FRONT), "FRONT_BIND": f"fd@{door.fileno()}", "SITE": SITE}
            command = [program("haproxy"), "-f", str(path)]
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, pass_fds=(door.fileno(),))

    @staticmethod
    def _configuration(slots: list[Slot]) -> str:
        text = (FRONT / "haproxy.cfg").read_text()
        names = "\n".join(f"  server replica-{slot.health} 127.0.0.1:{slot.web}" for slot in slots)
        text, servers = re.subn(r"^  server-template .*$", names, text, flags=re.MULTILINE)
        text, ports = re.subn(r"connect port 9100", "connect port srv_name,field(2,-)", text)
        # Debian's is too old for it; this proxy runs before the first replica does.
        text, states = re.subn(r"^  default-server init-state down$", "", text, flags=re.MULTILINE)
        assert (servers, ports, states) == (2, 2, 1)
        return text

    def log(self) -> str:
        """Return what it logged."""
        return (self._folder / "haproxy.log").read_text()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
