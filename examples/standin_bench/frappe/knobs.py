"""Every switch of the stand-in bench, read from the environment, and the named points they act on.

General
    STANDIN_DIR       folder shared by the fleet: counters of limited points, the default heartbeat file
    STANDIN_SCALE     multiplies every sleep; 1 (default) is a twentieth of the real bench, 0 is none
    STANDIN_LOG       file that gets one JSON line per command begin, point and end
                      (ns = time.monotonic_ns, pid, event, command, point, detail, argv; secrets masked)

Acting at a point: a comma separated list of ``POINT[@DETAIL][*N][=ARGUMENT]``. ``@DETAIL`` limits it to one
detail of the point (below), ``*N`` to the first N times over all processes that share STANDIN_DIR.
    STANDIN_DIE_CALL  run an executable there, wait, go on         ``migrate:patch=/some/file``
    STANDIN_PAUSE     wait there until a file exists               ``migrate:in_patch@p2=/some/file``
    STANDIN_SLOW_SQL  run ``SELECT SLEEP(seconds)`` there          ``migrate:in_patch=5``
                      (only at migrate:locked and migrate:in_patch)
    STANDIN_DIE_GROUP SIGKILL this process's whole group there     ``build:bundles*1``
    STANDIN_DIE       SIGKILL this process there                   ``new-site:doctypes@36``
    STANDIN_FAIL      raise RuntimeError there                     ``migrate:after_patches``

Points, in the order in which a command passes them
    new-site:     begin site_dir locked config db_user db sql_import@1..13 tables14
                  doctypes@4..100 (step 4) installed_apps admin end
    install-app:  begin before_install doctypes installed_apps after_install end
                  (DETAIL: the app; new-site passes them too, for every --install-app)
    migrate:      begin locked before_migrate patch in_patch patch_done doctypes after_patches
                  after_migrate end
                  (DETAIL of patch, in_patch, patch_done: the last part of the patch's name; in_patch is before
                  its commit; DETAIL of before_migrate, doctypes, after_migrate: the app)
    build:        begin bundles (old bundles deleted) empty_json (assets.json truncated) end
    schedule:     tick, every 0.2 s; worker: tick (DETAIL: its queues)
    config:       truncated (a config file is empty in this instant; DETAIL: its name)

Other behaviour
    STANDIN_SPAWN     ``setsid[=FILE]``: migrate starts a process in a session of its own that appends a line
                      to FILE (default STANDIN_DIR/heartbeat) every 20 ms, for 60 s at most

The database stand-in (package ``pymysql`` of this example; a real server ignores these)
    STANDIN_DB_DIR    folder that is the server; missing, or with a file ``down`` in it, it is down (2003)
    STANDIN_DB_LINGER seconds that unclosed sessions of this process stay listed after their last statement
    STANDIN_DB_CLIENT host name by which the server knows this client (default localhost)
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

REAL_TO_STANDIN = 1 / 20
_RULE = re.compile(r"(?P<point>[^@*=]+)(?:@(?P<detail>[^*=]+))?(?:\*(?P<times>\d+))?(?:=(?P<argument>.*))?")
_HEARTBEAT = (
    "import os, sys, time\n"
    "out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
    "for _ in range(3000):\n"
    "    os.write(out, b'%d %d\\n' % (os.getpid(), time.monotonic_ns()))\n"
    "    time.sleep(0.02)\n"
)


class Rule(NamedTuple):
    """One entry of a knob's list."""

    point: str
    detail: str | None
    times: int | None
    argument: str


def rules(knob: str) -> list[Rule]:
    """Return the entries of the environment variable ``STANDIN_<knob>``."""
    found = []
    for entry in filter(None, os.environ.get(f"STANDIN_{knob}", "").split(",")):
        match = _RULE.fullmatch(entry.strip())
        if match is None:
            message = f"STANDIN_{knob}: cannot read {entry!r}"
            raise ValueError(message)
        times = match["times"]
        found.append(Rule(match["point"], match["detail"], int(times) if times else None, match["argument"] or ""))
    return found


def nap(real_seconds: float) -> None:
    """Sleep for what took ``real_seconds`` on the measured bench, scaled down."""
    seconds = real_seconds * REAL_TO_STANDIN * float(os.environ.get("STANDIN_SCALE", "1"))
    if seconds > 0:
        time.sleep(seconds)


def shared_folder() -> Path:
    """Return the folder that all processes of the fleet share."""
    folder = os.environ.get("STANDIN_DIR")
    if not folder:
        message = "this knob needs STANDIN_DIR"
        raise ValueError(message)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def _still_due(knob: str, rule: Rule) -> bool:
    """Count this hit in a file under a lock, so that N holds for the fleet and not for each process."""
    if rule.times is None:
        return True
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{knob}-{rule.point}-{rule.detail}")
    descriptor = os.open(shared_folder() / f"count-{name}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        seen = int(os.read(descriptor, 20) or b"0")
        os.pwrite(descriptor, b"%d" % (seen + 1), 0)
    finally:
        os.close(descriptor)
    return seen < rule.times


def due(knob: str, point: str, detail: str = "") -> Rule | None:
    """Return the rule of this knob that acts now, if any."""
    for rule in rules(knob):
        if rule.point == point and rule.detail in (None, detail) and _still_due(knob, rule):
            return rule
    return None


def _masked(argv: list[str]) -> list[str]:
    """Hide the values of password options: this log may be shown, and leaks are looked for elsewhere."""
    shown = []
    for index, word in enumerate(argv):
        option, equals, _ = word.partition("=")
        if index and "password" in argv[index - 1] and argv[index - 1].startswith("--") and "=" not in argv[index - 1]:
            shown.append("***")
        else:
            shown.append(f"{option}=***" if equals and "password" in option else word)
    return shown


def record(event: str, point: str = "", detail: str = "", **more: object) -> None:
    """Append one line to STANDIN_LOG; one write(), so lines of many processes never mix."""
    path = os.environ.get("STANDIN_LOG")
    if not path:
        return
    line = {"ns": time.monotonic_ns(), "pid": os.getpid(), "event": event, "point": point, "detail": detail}
    line |= {"argv": _masked(sys.argv), **more}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def _pause(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.005)


def point(name: str, detail: str = "", *, sql: Callable[[str], object] | None = None) -> None:
    """Pass a named point: log it, then let every knob act that names it."""
    record("point", name, detail)
    if rule := due("DIE_CALL", name, detail):
        os.spawnv(os.P_WAIT, rule.argument, [rule.argument])  # noqa: S606 - a test names it
    if rule := due("PAUSE", name, detail):
        _pause(rule.argument)
    if sql and (rule := due("SLOW_SQL", name, detail)):
        sql(f"SELECT SLEEP({float(rule.argument)})")
    if due("DIE_GROUP", name, detail):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    if due("DIE", name, detail):
        os.kill(os.getpid(), signal.SIGKILL)
    if due("FAIL", name, detail):
        message = f"stand-in failure at {name} {detail}".rstrip()
        raise RuntimeError(message)


def spawn_heartbeat() -> None:
    """Start the process that STANDIN_SPAWN asks for and leave it alone: someone else must end it."""
    wish, _, path = os.environ.get("STANDIN_SPAWN", "").partition("=")
    if wish != "setsid":
        return
    import subprocess  # noqa: PLC0415 - the other commands start faster without it

    command = [sys.executable, "-S", "-c", _HEARTBEAT, path or str(shared_folder() / "heartbeat")]
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
