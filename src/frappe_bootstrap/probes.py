"""Probes of one container: a small file that its process keeps, and the two questions about it.

The file lies in a folder of the container's own memory (``BOOTSTRAP_STATE_DIR``, else the first of /run, /dev/shm and
/tmp that can be written) and carries the container's mount namespace in its name: containers of a pod may share
/dev/shm. What it says counts only while the process that wrote it lives; a number that another process has got since
does not deceive, because the start time is compared, too. A command that replaced the process by exec still is it.

Only the standard library's smallest parts are imported here: a probe runs every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FOLDERS = ("/run", "/dev/shm", "/tmp")  # noqa: S108 -- the last resort; a folder of somebody else is not used
_NAME = "frappe-bootstrap"
_LIMIT = 65536
STARTING, SERVING, UNREADY, STOPPING = "starting", "serving", "unready", "stopping"


def write(state: str, environ: Mapping[str, str], **facts: str) -> bool:
    """Say how this container is; False: there is no place for that, and the probes will say no."""
    pid = os.getpid()
    text = json.dumps({"state": state, "pid": pid, "started": _start_time(pid), **facts})
    for folder in _folders(environ):
        path = _path(folder)
        fresh = f"{path}.{pid}.new"
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)  # noqa: PTH103 -- pathlib costs more than the rest of a probe
            if os.lstat(folder).st_uid not in {os.getuid(), 0}:
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(fresh, flags, 0o644), "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(text)
            os.replace(fresh, path)  # noqa: PTH105
        except OSError:
            continue
        return True
    return False


def read(environ: Mapping[str, str]) -> dict[str, object]:
    """Return what the living process of this container says; empty: nothing does, or it is dead."""
    for folder in _folders(environ):
        try:
            with open(_path(folder), encoding="utf-8") as file:  # noqa: PTH123
                said = json.loads(file.read(_LIMIT))
            if said["started"] and said["started"] == _start_time(int(said["pid"])):
                return dict(said)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def answer(question: str, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Return the answer to ``live`` or ``ready``, and its reason."""
    said = read(environ)
    if not said:
        return False, "no process of this container says that it lives"
    state = str(said["state"])
    if question == "live":
        return True, state
    wanted = environ.get("IMAGE_REV", "").strip()
    if wanted and said.get("revision") not in {None, wanted}:
        return False, f"{state}, but for revision {said['revision']}"
    reason = f": {said['reason']}" if said.get("reason") else ""
    return state == SERVING, f"{state}{reason}"


def main(question: str) -> int:
    """Answer a probe."""
    yes, reason = answer(question, os.environ)
    sys.stdout.write(f"{'yes' if yes else 'no'}: {reason}\n")
    return 0 if yes else 1


def _folders(environ: Mapping[str, str]) -> Iterator[str]:
    if given := environ.get("BOOTSTRAP_STATE_DIR", "").strip():
        yield given
        return
    yield from (f"{folder}/{_NAME}" for folder in _FOLDERS)


def _path(folder: str) -> str:
    return f"{folder}/{os.stat('/proc/self/ns/mnt').st_ino}.json"  # noqa: PTH116


def _start_time(pid: int) -> int:
    """Return when a process began, in clock ticks; 0: it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if words[0] in {b"Z", b"X"} else int(words[19])
