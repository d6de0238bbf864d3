"""etcd for tests: an ensemble of one or three members, started on demand, ended by their pids.

A missing ``etcd`` fails the test that needs it: a suite that skips proves nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tests.servers import READY_WITHIN, free_port, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 15.0
"""Seconds that a request may take where the test is not about its limit."""
TIMING = ("--heartbeat-interval", "50", "--election-timeout", "500")
"""A new leader after about a second; the shortest server lease is one second."""


class Member:
    """One etcd process of ours."""

    def __init__(self, folder: Path, name: str, scheme: str) -> None:
        self.name = name
        self.folder = folder
        self.scheme = scheme
        self.port, self.peer_port = free_port(), free_port()
        self.args: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def peer(self) -> str:
        """Return the address for the other members."""
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def address(self) -> str:
        """Return where it serves clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the pid of the running process."""
        assert self._process is not None, "the member is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the process without waiting for it."""
        clients = f"{self.scheme}://127.0.0.1:{self.port}"
        command = ["etcd", "--name", self.name, "--data-dir", str(self.folder / self.name), *TIMING]
        command += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
        command += ["--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer]
        environment = {**os.environ, "GOMAXPROCS": "1"}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self.args], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP pauses it, with its connections open; SIGCONT lets it go on."""
        if number == signal.SIGSTOP:
            stop(self.pid)
        else:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process as a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY_WITHIN)
            self._process = None


class Etcd:
    """An ensemble on this host."""

    def __init__(self, folder: Path, members: int, *args: str, scheme: str = "http") -> None:
        self._folder = folder
        self._args = args
        self._control: tuple[str, ...] = ()
        self._scheme = scheme
        self.members = [Member(folder, f"m{number}", scheme) for number in range(members)]

    @property
    def url(self) -> str:
        """Return the store URL with all members."""
        scheme = "etcds" if self._scheme == "https" else "etcd"
        return f"{scheme}://{','.join(member.address for member in self.members)}"

    def trust(self, *options: str) -> None:
        """Set the options that etcdctl needs to talk to this ensemble."""
        self._control = options

    def start(self) -> None:
        """Start all members; return when they have a leader and answer."""
        cluster = ",".join(f"{member.name}={member.peer}" for member in self.members)
        for member in self.members:
            member.args = ("--initial-cluster", cluster, *self._args)
            member.start()
        self.wait()

    def wait(self) -> None:
        """Return when a write is accepted."""
        deadline = time.monotonic() + READY_WITHIN
        while self.control("put", "ready", "", check=False).returncode:
            assert time.monotonic() < deadline, (self._folder / "m0.log").read_text()[-2000:]
            time.sleep(0.05)

    def wipe(self) -> None:
        """Kill all members, delete their data, and start anew on the same addresses."""
        self.kill()
        for member in self.members:
            shutil.rmtree(self._folder / member.name)
        self.start()

    def control(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run etcdctl."""
        endpoints = ",".join(f"{self._scheme}://{member.address}" for member in self.members)
        options = ["--endpoints", endpoints, "--command-timeout", "10s", *self._control]
        return subprocess.run(
            ["etcdctl", *options, *command],  # noqa: S607 -- wherever it is installed
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=check,
        )

    def leader(self) -> Member:
        """Return the member that leads."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            answer = self.control("endpoint", "status", "-w", "json", check=False)
            with contextlib.suppress(ValueError):
                for row in json.loads(answer.stdout):
                    status = row["Status"]
                    if status["leader"] and status["leader"] == status["header"]["member_id"]:
                        return next(member for member in self.members if row["Endpoint"].endswith(member.address))
            time.sleep(0.05)
        message = "no member leads"
        raise AssertionError(message)

    def kill(self) -> None:
        """End all members."""
        for member in self.members:
            member.kill()

    def remove(self) -> None:
        """End all members and delete their data: each reserves 128 MB of disk, and their logs tell enough."""
        self.kill()
        for member in self.members:
            shutil.rmtree(self._folder / member.name, ignore_errors=True)


@contextlib.contextmanager
def etcd(folder: Path, members: int = 1, *args: str) -> Iterator[Etcd]:
    """Yield a running ensemble; end it afterwards."""
    ensemble = Etcd(folder, members, *args)
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.remove()
