"""The Lua scripts: package resources in ``lua/``, each with its contract at the top of the file.

Files that start with an underscore are fragments; Redis has no modules, so they are put in front.
"""

from __future__ import annotations

import hashlib
import pkgutil
from typing import NamedTuple


class Script(NamedTuple):
    """A script and the name under which a server that has seen it knows it."""

    source: bytes
    sha: bytes


def _load(name: str, *fragments: str) -> Script:
    source = b"\n".join(_file(part) for part in (*(f"_{fragment}" for fragment in fragments), name))
    # Redis names scripts by SHA-1; nothing is protected by it.
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


def _file(name: str) -> bytes:
    # pkgutil also reads out of a zip file and, unlike importlib.resources, costs nothing to import.
    data = pkgutil.get_data(__package__, f"lua/{name}.lua")
    if data is None:  # pragma: no cover -- a loader without get_data()
        message = f"lua/{name}.lua is missing from this installation"
        raise FileNotFoundError(message)
    return data


ACQUIRE = _load("acquire", "identity", "queue", "token")
RELEASE = _load("release", "queue")
WITHDRAW = _load("withdraw", "queue")
RENEW = _load("renew", "token")
REASSERT = _load("reassert", "token")
GREET = _load("greet", "identity", "token")
READ = _load("read")
BREAK = _load("break", "queue", "token")
CLAIM = _load("claim", "claim")
PUT_MARKER = _load("put_marker", "claim")
DELETE_MARKER = _load("delete_marker")
VIEW = _load("view", "identity")
