"""Who is connected: one file per session, kept locked by its client, so that a death is seen at once.

The record is rewritten in place, because the lock belongs to the inode; it is padded to one block, so that a
reader meets an old or a new record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ._store import Store

_SIZE = 4096


class Session:
    """This client's entry in the process list."""

    def __init__(self, store: Store, user: str, database: str | None) -> None:
        """Take the next id and appear in the list, already locked."""
        self._folder = store.folder / "sessions"
        self._folder.mkdir(exist_ok=True)
        with store.lock():
            counter = self._folder / "last"
            self.id = int(counter.read_text() or 0) + 1 if counter.exists() else 1
            counter.write_text(str(self.id))
        self._path = self._folder / f"{self.id}.session"
        self._kill = self._folder / f"{self.id}.kill"
        self.fields: dict[str, Any] = {
            "id": self.id,
            "user": user,
            "host": f"{store.client}:{os.getpid()}",
            "db": database,
            "linger": float(os.environ.get("STANDIN_DB_LINGER", "0")),
        }
        fresh = self._folder / f"{self.id}.fresh"
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.update(command="Sleep", info=None, in_use=False)
        fresh.rename(self._path)

    def update(self, **fields: object) -> None:
        """Show what this session does now."""
        self.fields |= fields
        self.fields["since"] = time.monotonic()
        info = self.fields["info"]
        text = json.dumps(self.fields | {"info": info and info[:500]})
        os.pwrite(self._descriptor, text.encode().ljust(_SIZE), 0)

    @property
    def killed(self) -> bool:
        """Return whether someone ended this session."""
        return self._kill.exists()

    def close(self) -> None:
        """Leave the list, as a proper goodbye does."""
        for path in (self._path, self._kill):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def _read(path: Path) -> dict[str, Any] | None:
    """Return one record if the session counts: alive, or dead while its statement still runs."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fields: dict[str, Any] = json.loads(os.pread(descriptor, _SIZE, 0))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return fields
        if time.monotonic() < fields["since"] + fields["linger"]:
            return fields | {"command": "Query"}
        path.unlink(missing_ok=True)
        return None
    finally:
        os.close(descriptor)


def listing(store: Store) -> list[dict[str, Any]]:
    """Return every session that the server still knows, oldest first."""
    paths = (store.folder / "sessions").glob("*.session")
    found = [_read(path) for path in paths if not path.with_suffix(".kill").exists()]
    return sorted(filter(None, found), key=lambda fields: fields["id"])


def kill(store: Store, number: int) -> None:
    """End a session: its client notices at its next word, a dead client's statement ends at once."""
    path = store.folder / "sessions" / f"{number}.session"
    path.with_suffix(".kill").touch()
    if not path.exists():
        path.with_suffix(".kill").unlink(missing_ok=True)
