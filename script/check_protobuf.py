"""Check the etcd plugin with each protobuf that it supports, on a real etcd.

usage: python script/check_protobuf.py FOLDER

Makes an environment for each version below FOLDER with uv, installs this repository's core and plugin with
etcd3 0.12.0 into it, and runs one program there: grant, renew, watch, marker, release. Exits with 1 if any fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tests.stacks.etcd import etcd  # noqa: E402 -- from the repository

VERSIONS = {"4": "protobuf>=4.22,<5", "5": "protobuf>=5,<6", "6": "protobuf>=6,<7", "newest": "protobuf"}
PROGRAM = """
import importlib.metadata, sys
from coordinate import connect
from coordinate.types import MarkerState

with connect(sys.argv[1], ttl=5) as ours, connect(sys.argv[1], ttl=5) as theirs:
    lease, waiter = ours.lease("site"), theirs.lease("site")
    lease.acquire(10)
    (answer,) = ours.backend.renew([lease.grant])
    assert type(answer).__name__ == "Renewed", answer
    markers = ours.markers("site")
    markers.claim(lease, ours.backend.store_id)
    markers.done(markers.begin("migrate", "r1"))
    assert theirs.markers("site").view().find("migrate", "r1").state is MarkerState.DONE
    with waiter.contest(timeout=20) as contest:
        assert not contest.attempt()
        assert not contest.attempt()
        assert lease.release()
        while not contest.attempt():
            contest.sleep()
    assert waiter.token > lease.token
    assert waiter.release()
print(importlib.metadata.version("protobuf"))
"""


def main(folder: Path) -> int:
    """Check all; return the exit code."""
    failed = False
    place = folder / "etcd"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with etcd(place) as ensemble:
        for major, requirement in VERSIONS.items():
            began = time.monotonic()
            python = environment(folder / f"protobuf-{major}", requirement)
            ensemble.control("del", "", "--prefix")
            done = subprocess.run([python, "-c", PROGRAM, ensemble.url], capture_output=True, text=True, check=False)
            version = done.stdout.strip()
            good = done.returncode == 0 and not done.stderr and (major == "newest" or version.startswith(f"{major}."))
            failed = failed or not good
            print(f"{'ok    ' if good else 'FAILED'} {requirement}: {version} in {time.monotonic() - began:.1f} s")
            print(done.stderr, end="")
    return int(failed)


def environment(folder: Path, requirement: str) -> Path:
    """Return the interpreter of an environment with that protobuf."""
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    if not python.exists():
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [*uv, "pip", "install", "--quiet", "--python", python, "--upgrade-package", "protobuf", requirement]
    subprocess.run([*install, "-e", ROOT, "-e", ROOT / "plugins" / "etcd"], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
