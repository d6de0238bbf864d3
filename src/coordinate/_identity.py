"""Who this process is, told so that two containers with equal host names and pid 1 are never confused."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from coordinate.types import Owner


@functools.cache
def _facts(pid: int) -> tuple[str, str, str, int]:
    """Return host, pid namespace, boot id and start ticks; cached per pid because a fork changes them."""
    return os.uname().nodename, _namespace(), _boot_id(), start_ticks(pid)


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The command name, in parentheses, may hold spaces and parentheses itself: count from the last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def mint(label: str = "") -> Owner:
    """Return a new owner of this process with a nonce that nobody else has.

    Example:
        >>> mint().nonce != mint().nonce
        True
    """
    pid = os.getpid()
    host, namespace, boot, started = _facts(pid)
    nonce = os.urandom(16).hex()
    return Owner(nonce, host, pid, namespace, boot, started, label)
