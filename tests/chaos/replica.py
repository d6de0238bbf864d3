"""One member of a fleet under test: runs a plan of guarded commands and hurts itself where it is told to.

usage: replica.py URL DIR RUN [KIND STEP PHASE]

KIND is ``kill`` (SIGKILL of this process), ``group`` (SIGKILL of its process group) or ``stop`` (SIGSTOP of this
process until the judge lets it go on); PHASE is ``before``, ``inside`` or ``after`` the step. Whoever leads first
hurts itself; a file created exclusively makes sure that it happens once over the fleet. Everything that happens is
appended to DIR/history as one JSON line, with a clock that all processes of a host share. Inside a step is where its
command has said that it works.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from coordinate import Plan, Step, _guard, connect
from coordinate.steps import Event, StepContext, run
from coordinate.testing import History

STEPS = ("config", "site", "migrate", "assets")
TTL = 3.0
# A step: a grandchild in a session of its own beats until it dies; the step itself takes a fifth of a second.
WORK = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1], "ab", buffering=0) as beats:
            while True:
                beats.write(b"%d %d\\n" % (int(sys.argv[2]), time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
                time.sleep(0.01)
    os._exit(0)
print("working", flush=True)
time.sleep(0.2)
"""


class Replica:
    """One member."""

    def __init__(self, url: str, folder: Path, label: str, fault: tuple[str, str, str] | None) -> None:
        self.url = url
        self.folder = folder
        self.label = label
        self.history = History(folder / "history", label)
        self.fault = fault

    def log(self, what: str, **fields: object) -> None:
        """Append to the history."""
        self.history.note(what, **fields)

    def hurt(self, step: str, phase: str) -> None:
        """Hurt this process if this is the place and nobody was hurt yet."""
        if self.fault is None or self.fault[1:] != (step, phase):
            return
        try:
            (self.folder / "hurt").touch(exist_ok=False)
        except FileExistsError:
            return
        kind = self.fault[0]
        self.log("hurt", kind=kind)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "group":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        else:
            (self.folder / "stopped").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)

    def observe(self, event: Event) -> None:
        """Log events; find survivors of earlier leaders at the moment of leading."""
        self.log(event.kind, step=event.step, token=event.token, text=event.text)
        if event.kind == "leading":
            self.log("survivors", token=event.token, pids=self.survivors())
        if event.kind == "begin":
            self.hurt(event.step, "before")
        if event.kind == "done":
            self.history.recorded("fleet", event.step, "r1", "done", event.token)
            self.hurt(event.step, "after")

    def survivors(self) -> list[int]:
        """Return living processes that were started by any leader of this fleet, but for their guardians.

        A guardian frees the locks that it holds when its work is done, and ends an instant later.
        """
        needle = f"FLEET={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    environ, stat = (entry / "environ").read_bytes(), (entry / "stat").read_text()
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                guardian = _guard.__file__.encode() in argv
                if needle in environ.split(b"\0") and not guardian and stat.rpartition(")")[2].split()[0] not in "ZX":
                    found.append(int(entry.name))
        return found

    def step(self, name: str) -> Step:
        """Return a step that beats under its token."""

        def action(context: StepContext) -> None:
            env = os.environ | {"FLEET": str(self.folder)}
            beats = str(self.folder / "beats")
            command = [sys.executable, "-I", "-S", "-c", WORK, beats, str(context.lease.token)]
            context.run(command, env=env, on_line=lambda _: self.hurt(name, "inside"))

        return Step(name, action)

    def main(self) -> int:
        """Take part, then say that this member serves."""
        plan = Plan("fleet", "r1", [self.step(name) for name in STEPS])
        with connect(self.url, ttl=TTL, holder=self.label) as coordinator:
            outcome = run(plan, coordinator, timeout=240, observer=self.observe)
        self.log("serving", outcome=outcome.value)
        return 0


if __name__ == "__main__":
    fault = (sys.argv[4], sys.argv[5], sys.argv[6]) if len(sys.argv) > 6 else None
    sys.exit(Replica(sys.argv[1], Path(sys.argv[2]), sys.argv[3], fault).main())
