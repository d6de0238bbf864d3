"""One scheduler in a fleet of identical containers: the framework has no lock for it, a lease is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.frappe.conftest import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

# A scheduler that tells when it works, and that there is no other one at that time.
SCHEDULE = """
import fcntl, os, sys
folder = sys.argv[1]
alone = os.open(folder + "/alone", os.O_RDWR | os.O_CREAT)
fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
with open(folder + "/works", "w") as pipe:
    pipe.write(sys.argv[2] + "\\n")
sys.stdin.read()
"""


def schedule(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a container's scheduler as the documentation says."""
    command = ["run", "frappe/scheduler", "--", sys.executable, "-c", SCHEDULE, str(folder), name]
    environ = {**os.environ, "COORDINATE_URL": f"file://{folder}/leases"}
    return subprocess.Popen([sys.executable, "-m", "coordinate", *command], env=environ, stdin=subprocess.PIPE)


def test_one_scheduler_works_and_another_one_follows_when_it_is_killed(tmp_path: Path) -> None:
    """Hazard 37, point 8: two containers start it, one works; after kill -9 the other one does, never both."""
    os.mkfifo(tmp_path / "works")
    children = {name: schedule(tmp_path, name) for name in ("one", "two")}
    try:
        first = (tmp_path / "works").read_text().strip()
        children[first].send_signal(signal.SIGKILL)
        second = (tmp_path / "works").read_text().strip()
        assert {first, second} == set(children)
        assert children[second].stdin
        children[second].stdin.close()
        assert children[second].wait(LIMIT) == 0
    finally:
        for child in children.values():
            child.kill()
            child.wait(LIMIT)
            if child.stdin:
                child.stdin.close()
