"""The folder that stands for a database server: one sqlite file per database, users.json, lock, sessions.

``users.json``: {"port": 3306, "users": {user: {host: {"password": p, "databases": [name, ... or "*"]}}}}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import err

if TYPE_CHECKING:
    from collections.abc import Iterator

Users = dict[str, dict[str, dict[str, Any]]]
CLIENT_HOST_DEFAULT = "localhost"


class Store:
    """One server folder, seen from one client process."""

    def __init__(self, host: str, port: int, *, by_socket: bool = False) -> None:
        """Reach the server or raise 2003, without saying which of the reasons it was."""
        folder = os.environ.get("STANDIN_DB_DIR")
        self.client = os.environ.get("STANDIN_DB_CLIENT", CLIENT_HOST_DEFAULT)
        self.folder = Path(folder or "/nonexistent")
        refused = err.OperationalError(
            2003, f"Can't connect to MySQL server on '{host}' ([Errno 111] Connection refused)"
        )
        if not self.up:
            raise refused
        if not by_socket and self._state()["port"] != port:
            raise refused

    @property
    def up(self) -> bool:
        """Return whether the server answers."""
        return (self.folder / "users.json").exists() and not (self.folder / "down").exists()

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "users.json").read_text())
        return state

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the server's own lock, for changes of users, databases and sessions."""
        descriptor = os.open(self.folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def users(self) -> Users:
        """Return all users."""
        users: Users = self._state()["users"]
        return users

    @contextlib.contextmanager
    def changing_users(self) -> Iterator[Users]:
        """Change the users under the server lock; readers see the old or the new file, never half of one."""
        with self.lock():
            state = self._state()
            yield state["users"]
            fresh = self.folder / f"users.json.{os.getpid()}"
            fresh.write_text(json.dumps(state))
            fresh.replace(self.folder / "users.json")

    def login(self, user: str, password: str) -> set[str]:
        """Return the databases of this user; wrong password, unknown user, wrong host are all 1045."""
        hosts = self.users().get(user, {})
        account = hosts.get(self.client) or hosts.get("%")
        if account is None or account["password"] != password:
            using = "YES" if password else "NO"
            message = f"Access denied for user '{user}'@'{self.client}' (using password: {using})"
            raise err.OperationalError(1045, message)
        return set(account["databases"])

    def path(self, database: str) -> Path:
        """Return the file of one database."""
        return self.folder / f"{database}.sqlite"

    def databases(self) -> list[str]:
        """Return the names of all databases."""
        return sorted(path.stem for path in self.folder.glob("*.sqlite"))
