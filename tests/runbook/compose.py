"""``docker compose`` as far as the runbook uses it, on processes: what is typed there is what is run here."""

from __future__ import annotations

import fnmatch
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.acceptance.fleet import Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.acceptance.fleet import Fleet
    from tests.runbook.page import Block

SERVICE = "app"
PROGRAMS = Path(sys.executable).parent
LIMIT = 240.0


class Compose:
    """Plays the blocks of a section.

    Args:
        fleet: the containers of the service.
        build: what ``docker compose build`` does.
    """

    def __init__(self, fleet: Fleet, build: Callable[[], object] | None = None) -> None:
        self.fleet = fleet
        self.build = build
        self.codes: list[int] = []
        """With what each container has ended since the last ``up``."""
        self.printed = ""
        """By the last block of commands."""

    def play(self, blocks: Iterable[Block]) -> None:
        """Set what is to be set, run what is to be run, and compare what is printed."""
        for block in blocks:
            if block.kind == "env":
                for line in filter(None, block.text.splitlines()):
                    name, _, value = line.partition("=")
                    self.fleet.environ[name] = value
            elif block.kind == "sh":
                lines = block.text.replace("\\\n", " ").splitlines()
                self.printed = "".join(self._run(line) for line in lines if not line.startswith("#"))
            else:
                self._compare(block.text)

    def _compare(self, expected: str) -> None:
        """Each line has to be among what was printed, in that order."""
        left = iter([line.strip() for line in self.printed.splitlines()])
        for line in filter(None, map(str.strip, expected.splitlines())):
            pattern = line.replace("[", "[[]")
            assert any(fnmatch.fnmatchcase(found, pattern) for found in left), f"{line!r} not in\n{self.printed}"

    def _run(self, line: str) -> str:
        words = shlex.split(line)
        if words[:2] != ["docker", "compose"]:
            return self._shell(line, self.fleet.folder)
        command, rest = words[2], words[3:]
        actions = {"up": self._up, "stop": self._stop, "logs": self._logs, "build": self._build}
        if command in actions:
            return actions[command](rest)
        assert command in {"exec", "run"}, line
        # Options of docker's own come before the service; one of them brings a folder along.
        program = line.partition(f" {SERVICE} ")[2].replace(" /backup/", f" {self.fleet.folder}/backup/")
        return self._shell(program, self.fleet.containers[0].bench)

    def _up(self, words: list[str]) -> str:
        assert words == ["-d"]
        if {"compose.leases.yaml", "compose.sentinel.yaml"} & set(
            self.fleet.environ.get("COMPOSE_FILE", "").split(":")
        ):
            self.fleet.environ["COORDINATE_URL"] = ""
            self.fleet.environ["COORDINATE_URL_FILE"] = str(self.fleet.folder / "secrets" / "coordinate_url")
        wanted = int(self.fleet.environ.get("REPLICAS", "0"))
        for number in range(len(self.fleet.containers), wanted):
            self.fleet.containers.append(Container(self.fleet, f"replica-{number}"))
        self.codes = self.fleet.boot(LIMIT)
        return ""

    def _stop(self, words: list[str]) -> str:
        assert words == [SERVICE]
        for container in self.fleet.containers:
            if container.process is not None and container.process.poll() is None:
                container.process.send_signal(signal.SIGTERM)
        return ""

    def _logs(self, words: list[str]) -> str:
        assert SERVICE in words
        return self.fleet.told()

    def _build(self, words: list[str]) -> str:
        assert words == []
        assert self.build is not None
        self.build()
        return ""

    def _shell(self, line: str, place: Path) -> str:
        """Run a line with the first container's environment; like a person, take what it prints on either stream."""
        bench = self.fleet.containers[0].bench
        environ = self.fleet.environ | {
            "BENCH_DIR": str(bench),
            "BOOTSTRAP_STATE_DIR": str(bench / "state"),
            "PATH": f"{bench / 'env/bin'}:{PROGRAMS}:{self.fleet.environ['PATH']}",
        }
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", line],
            env=environ,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout
