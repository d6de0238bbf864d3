"""``docker compose`` as far as the runbook uses it, on processes: what is typed there is what is run here."""

from __future__ import annotations

import fnmatch
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.acceptance.fleet import BOOTSTRAP
from tests.runbook.images import Images
from tests.runbook.replica import Replica, merged, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.acceptance.fleet import Fleet
    from tests.runbook.page import Block

SERVICE = "app"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "frappe"
PROGRAMS = (EXAMPLE / "bin", Path(sys.executable).parent)
LIMIT = 240.0
OPTIONS = {
    "build": {},
    "down": {},
    "exec": {},
    "logs": {},
    "run": {"--rm": False, "--entrypoint": True, "--volume": True},
    "stop": {},
    "up": {"-d": False, "--force-recreate": False, "--no-build": False},
}
"""By command, docker's own options that are known here, and whether each has a value."""


class Words(NamedTuple):
    """A command of docker's: its options, the service, and the program that is to be run in it."""

    options: dict[str, str]
    service: str
    program: list[str]


def parsed(command: str, words: list[str]) -> Words:
    """Take a command apart; an option that is not known is an error, as it is with docker."""
    known: Mapping[str, bool] = OPTIONS[command]
    options: dict[str, str] = {}
    while words and words[0].startswith("-"):
        name, *words = words
        assert name in known, f"{command} {name}"
        options[name] = words.pop(0) if known[name] else ""
    service, *program = words or [""]
    assert service in {"", SERVICE}, service
    return Words(options, service, program)


def passed(*files: str) -> dict[str, str]:
    """Return which variable of .env the service's containers get under which name, and with which default."""
    text = "".join((EXAMPLE / name).read_text() for name in files)
    rows = re.findall(r"^ {6}([A-Z_]+): \$\{\1(?::?-([^}$]*))?[}:$]", text, re.MULTILINE)
    return dict(rows)


class Compose:
    """Plays the blocks of a section.

    Args:
        fleet: what the service's containers share; an empty one.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.images = Images()
        self.variables = {"IMAGE_REV": "v1", "REPLICAS": "3", "COMPOSE_FILE": "compose.yaml"}
        """Of .env and of the shell."""
        self.replicas: list[Replica] = []
        self.printed = ""
        """By the last block of commands."""
        self._runs = 0

    @property
    def codes(self) -> list[int]:
        """With what each container has ended; 0 is one that serves."""
        return [replica.code(LIMIT) for replica in self.replicas]

    def play(self, blocks: Iterable[Block]) -> None:
        """Set what is to be set, run what is to be run, and compare what is printed."""
        for block in blocks:
            if block.kind == "env":
                for line in filter(None, block.text.splitlines()):
                    name, _, value = line.partition("=")
                    self.set(name, value)
            elif block.kind == "sh":
                lines = block.text.replace("\\\n", " ").splitlines()
                self.printed = "".join(self._run(line) for line in lines if not line.startswith("#"))
            else:
                self._compare(block.text)

    def set(self, name: str, value: str) -> None:
        """Write a line of .env; one that no file of compose reads would change nothing."""
        known = "".join(path.read_text() for path in EXAMPLE.glob("compose*.yaml"))
        assert name == "COMPOSE_FILE" or f"${{{name}" in known, name
        self.variables[name] = value
        if name == "IMAGE_REV":
            self.fleet.environ[name] = value

    def _compare(self, expected: str) -> None:
        """Each line has to be among what was printed, in that order."""
        left = iter([line.strip() for line in self.printed.splitlines()])
        for line in filter(None, map(str.strip, expected.splitlines())):
            pattern = line.replace("[", "[[]")
            assert any(fnmatch.fnmatchcase(found, pattern) for found in left), f"{line!r} not in\n{self.printed}"

    def _run(self, line: str) -> str:
        words = shlex.split(line)
        if words[:3] == ["docker", "image", "inspect"]:
            return f"{self.images.inspect(words[-1].rpartition(':')[2])}\n"
        if words[:2] != ["docker", "compose"]:
            return self._typed(line)
        actions = {
            "build": self._build,
            "down": self._down,
            "exec": self._exec,
            "logs": lambda _: merged(self.replicas),
            "run": self._run_once,
            "stop": self._stop,
            "up": self._up,
        }
        return actions[words[2]](parsed(words[2], words[3:]))

    def _build(self, _: Words) -> str:
        self.images.build(self.variables["IMAGE_REV"])
        return ""

    def _up(self, words: Words) -> str:
        """Make what is missing or has another configuration, start what does not run, leave the rest alone."""
        assert "-d" in words.options
        image = self.images.ensure(self.variables["IMAGE_REV"], build="--no-build" not in words.options)
        while len(self.replicas) < int(self.variables["REPLICAS"]):
            self.replicas.append(Replica(self.fleet, len(self.replicas) + 1))
        wanted = (image, self._environ())
        for replica in self.replicas:
            if replica.made_of != wanted or "--force-recreate" in words.options:
                replica.make(*wanted)
        for replica in self.replicas:
            if not replica.serves:
                replica.start()
        assert len(self.codes) == len(self.replicas), "all have ended"
        return ""

    def _environ(self) -> dict[str, str]:
        """Return what a container gets now: of .env what the files hand on, and secrets as files."""
        files = self.variables["COMPOSE_FILE"].split(":")
        given = {name: self.variables.get(name, default) for name, default in passed(*files).items()}
        environ = {name: value for name, value in given.items() if value}
        if any("COORDINATE_URL_FILE" in (EXAMPLE / name).read_text() for name in files):
            environ |= {"COORDINATE_URL": "", "COORDINATE_URL_FILE": str(self.fleet.folder / "secrets/coordinate_url")}
        return environ | {"IMAGE_REV": self.variables["IMAGE_REV"], "STANDIN_FAIL": self._fails()}

    def _fails(self) -> str:
        return self.images.inspect(self.variables["IMAGE_REV"]).code.fails

    def _stop(self, words: Words) -> str:
        assert words.service == SERVICE
        for replica in self.replicas:
            replica.stop()
        return ""

    def _down(self, _: Words) -> str:
        for replica in self.replicas:
            replica.remove()
        return ""

    def _exec(self, words: Words) -> str:
        first = self.replicas[0]
        assert not first.stopped, "it does not run"
        return self._inside(words.program, first.bench, first.environ)

    def _run_once(self, words: Words) -> str:
        """Run a program in a container of its own: of the image that has the name now, with the settings of now."""
        self._runs += 1
        image = self.images.ensure(self.variables["IMAGE_REV"], build=True)
        bench = unpack(image, self.fleet.folder / f"run-{self._runs}", self.fleet.sites)
        program = words.program if words.options.get("--entrypoint") == "" else [*BOOTSTRAP, "--", *words.program]
        if volume := words.options.get("--volume"):
            source, target, _ = volume.replace("$PWD", str(self.fleet.folder)).split(":")
            program = [word.replace(f" {target}/", f" {source}/") for word in program]
        return self._inside(program, bench, self._environ())

    def _inside(self, program: list[str], bench: Path, environ: Mapping[str, str]) -> str:
        folders = {"BENCH_DIR": str(bench), "BOOTSTRAP_STATE_DIR": str(bench / "state")}
        return self._shell(shlex.join(program), bench, {**environ, **folders}, bench / "env/bin")

    def _typed(self, line: str) -> str:
        """Run a line of the operator's own shell, who is not root: what he may not write, he cannot."""
        for name in re.findall(r">\s*([\w./-]+)", line):
            path = self.fleet.folder / name
            assert not path.exists() or path.stat().st_mode & stat.S_IWUSR, f"{line}: permission denied"
        return self._shell(line, self.fleet.folder, self.variables)

    def _shell(self, line: str, place: Path, environ: Mapping[str, str], *programs: Path) -> str:
        """Run a line; like a person, take what it prints on either stream."""
        path = [*map(str, (*programs, *PROGRAMS)), self.fleet.environ["PATH"]]
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", line],
            env={**self.fleet.environ, **environ, "PATH": ":".join(path)},
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout
