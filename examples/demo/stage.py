"""The processes of the demo: they start here, and whatever they started ends here."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_PARENT = 1
"""Index of the parent's pid in what follows the name in /proc/PID/stat."""


class Moment(NamedTuple):
    """Something a command of the stand-in bench reported."""

    ns: int
    replica: str
    pid: int
    point: str
    detail: str


def adopt_orphans() -> None:
    """Become the parent of every orphan among our descendants, so that none can get away."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def alive(pid: int) -> bool:
    """Return whether a process exists and is more than a corpse."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _stat(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(ancestor: int) -> list[int]:
    """Return every process below another one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(entry.name)[_PARENT])
            except OSError:
                continue
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {ancestor})


def end_everything() -> None:
    """Kill and reap everything below this process."""
    while left := descendants(os.getpid()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError):
                continue
        time.sleep(0.01)


class Replica:
    """One container of the fleet: a bench of its own, the shared sites, the bootstrap, then a web server."""

    def __init__(self, name: str, folder: Path, bench: Path, environ: dict[str, str]) -> None:
        self.name = name
        self.bench = bench
        self.output = folder / f"{name}.log"
        self.events = folder / f"{name}.events"
        self._port = folder / f"{name}.port"
        self._environ = {**environ, "BENCH_DIR": str(bench), "STANDIN_LOG": str(self.events), "COORDINATE_HOLDER": name}
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, web: Path, site: str) -> None:
        """Start the bootstrap; it becomes the web server when the site is ready."""
        self._port.unlink(missing_ok=True)
        serve = [str(self.bench / "env/bin/python"), str(web), "--site", site, "--port", "0"]
        serve += ["--port-file", str(self._port)]
        # Like the commands of an image, the server is started in the sites folder.
        there = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.bench / "sites"), *serve]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("frappe-bootstrap"), "--", *there],
                env=self._environ,
                cwd=self.bench,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the pid of the bootstrap, or of what took its place."""
        return self._process.pid if self._process else 0

    def ended(self) -> int | None:
        """Return the exit code of a replica that ended."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """Kill it as a machine does: this one process, at once, without a word."""
        os.kill(self.pid, signal.SIGKILL)
        if self._process:
            self._process.wait()

    def news(self) -> list[Moment]:
        """Return what its bench reported since the last call."""
        if not self.events.exists():
            return []
        with self.events.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [self._moment(json.loads(line)) for line in whole.splitlines()]

    def _moment(self, line: dict[str, Any]) -> Moment:
        return Moment(line["ns"], self.name, line["pid"], line["point"], line["detail"])

    def ping(self, site: str) -> dict[str, Any] | None:
        """Return the answer of its web server, or None while there is none."""
        if not self._port.exists():
            return None
        connection = http.client.HTTPConnection("127.0.0.1", int(self._port.read_text()), timeout=2)
        try:
            connection.request("GET", "/api/method/ping", headers={"Host": site})
            answer = connection.getresponse()
            body: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return body if answer.status == http.client.OK else None
