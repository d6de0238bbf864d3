"""Starts a fleet, lets it be hurt, and judges the history it leaves. Knows nothing of the store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coordinate.testing import History, oracle
from tests.chaos.replica import STEPS, TTL

if TYPE_CHECKING:
    from coordinate.testing.oracle import Fact

REPLICA = str(Path(__file__).with_name("replica.py"))


class Fleet:
    """Three replicas in their own process groups."""

    def __init__(self, url: str, folder: Path, fault: tuple[str, str, str] | None = None, members: int = 3) -> None:
        self.folder = folder
        self.fault = fault
        self.members = [self._start(url, number) for number in range(members)]

    def _start(self, url: str, number: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, REPLICA, url, str(self.folder), f"replica-{number}", *(self.fault or ())]
        with (self.folder / f"stderr-{number}").open("wb") as stderr:
            return subprocess.Popen(argv, stderr=stderr, start_new_session=True)

    def finish(self, within: float = 240.0) -> list[int]:
        """Wait for all members, letting a stopped one go on when its lease is long gone; return exit codes."""
        deadline = time.monotonic() + within
        try:
            while any(member.poll() is None for member in self.members):
                self._release_stopped()
                assert time.monotonic() < deadline, f"the fleet hangs:\n{self.told()}"
                time.sleep(0.02)
        finally:
            self.end()
        return [member.returncode for member in self.members]

    def _release_stopped(self) -> None:
        note = self.folder / "stopped"
        if note.exists() and time.time() - note.stat().st_mtime > 2.5 * TTL:
            os.kill(int(note.read_text()), signal.SIGCONT)
            note.unlink()

    def end(self) -> None:
        """Kill what is left."""
        for member in self.members:
            if member.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(member.pid, signal.SIGKILL)
                member.wait()

    def history(self) -> list[Fact]:
        """Return what happened, in order of time."""
        return History(self.folder / "history").facts()

    def told(self) -> str:
        """Return history and error output, for a failing test."""
        errors = "".join(path.read_text() for path in sorted(self.folder.glob("stderr-*")))
        return "\n".join(map(str, self.history())) + "\n" + errors

    def judge(self, codes: list[int]) -> None:
        """Hold the history against the promises."""
        history, told = self.history(), self.told()
        hurt = [line for line in history if line["what"] == "hurt"]
        assert len(hurt) == (1 if self.fault else 0), told
        dead = {line["pid"] for line in hurt if line["kind"] != "stop"}
        serving = {line["pid"] for line in history if line["what"] == "serving"}
        assert serving == {member.pid for member in self.members} - dead, told
        assert sorted(codes) == sorted([-signal.SIGKILL] * len(dead) + [0] * len(serving)), told
        for step in STEPS:
            done = [line for line in history if line["what"] == "done" and line["step"] == step]
            # A leader that is killed right after its record was acknowledged may not live to tell.
            assert len(done) == 1 or (len(done) == 0 and dead), told
        tokens = [("fleet", line["token"]) for line in history if line["what"] == "leading"]
        assert oracle.stale_tokens(tokens) == [], told
        assert oracle.violations(history) == [], told
        for line in history:
            if line["what"] == "survivors":
                assert line["pids"] == [], told
        self._judge_beats(history, told)

    def _judge_beats(self, history: list[Fact], told: str) -> None:
        """No descendant of an earlier token beats after a later one leads."""
        path = self.folder / "beats"
        beats = [tuple(map(int, line.split())) for line in path.read_text().splitlines() if line.count(" ") == 1]
        leading = {line["token"]: line["t"] for line in history if line["what"] == "leading"}
        for token, when in beats:
            for later, since in leading.items():
                assert later <= token or when < since, f"token {token} beat after {later} led\n{told}"
