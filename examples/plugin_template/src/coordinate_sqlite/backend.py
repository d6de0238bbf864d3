"""Leases and markers in one SQLite file. Each operation is one transaction that holds the file's write lock."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, ClassVar

import msgspec

from coordinate import types as t
from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.errors import AlreadyDone, BackendUnavailable, ConfigError, StaleToken
from coordinate.polling import PollingWatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coordinate.url import StoreUrl

_TABLES = """
CREATE TABLE IF NOT EXISTS lease (name PRIMARY KEY, token INTEGER, broken INTEGER, ttl REAL, owner, expires REAL);
CREATE TABLE IF NOT EXISTS claim (scope PRIMARY KEY, token INTEGER, data);
CREATE TABLE IF NOT EXISTS marker (scope, step, revision, data, PRIMARY KEY (scope, step, revision));
"""


class SqliteBackend(Backend):
    """One file. A connection for each operation: nothing to share between threads, nothing to leak."""

    schemes: ClassVar[tuple[str, ...]] = ("sqlite",)
    default_url: ClassVar[str] = "sqlite:///var/tmp/coordinate.db"
    capabilities = frozenset(
        {t.Capability.EXPIRY, t.Capability.FLOOR, t.Capability.CROSS_PROCESS, t.Capability.DURABLE_MARKERS}
    )
    store_id = ""

    def __init__(self, path: str, settings: StoreSettings) -> None:
        self._path, self._settings, self.store_id = f"{path}-{settings.namespace}", settings, f"sqlite:{path}"

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> SqliteBackend:
        """Return a backend; the file is made at the first operation."""
        url.check_options(())
        if url.hosts or len(url.path) < 2:  # noqa: PLR2004 -- a slash and a name
            raise ConfigError("a sqlite URL looks like sqlite:///path/to/file.db")  # noqa: EM101, TRY003 -- short
        return cls(os.path.realpath(url.path), settings)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; what cannot be known is `BackendUnavailable`, and nothing else of the driver leaves."""
        try:
            with contextlib.closing(sqlite3.connect(self._path, self._settings.timeout, isolation_level=None)) as base:
                base.execute("PRAGMA synchronous=FULL")
                base.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, _TABLES.split(";")):
                    base.execute(statement)
                with base:
                    yield base
        except sqlite3.Error as error:
            message = f"{self._path}: {error}: is the folder there and writable?"
            raise BackendUnavailable(message) from error

    def _held(self, base: sqlite3.Connection, name: str) -> t.LeaseRecord | None:
        query = "SELECT token, ttl, owner, expires FROM lease WHERE name=? AND owner != ''"
        row = base.execute(query, (name,)).fetchone()
        left = row[3] - self._settings.clock.now() if row else 0.0
        # More than its whole length: from before a reboot of this host.
        if row is None or not 0 < left <= row[1]:
            return None
        return t.LeaseRecord(name, row[0], msgspec.json.decode(row[2], type=t.Owner), row[1], left)

    @staticmethod
    def _tokens(base: sqlite3.Connection, name: str) -> tuple[int, int]:
        return base.execute("SELECT token, broken FROM lease WHERE name=?", (name,)).fetchone() or (0, 0)

    def acquire(
        self, name: str, owner: t.Owner, ttl: float, *, floor: int = 0, queue: Watch | None = None, unled: bool = False
    ) -> t.AcquireAnswer:
        """Grant, or say who holds it."""
        del queue, unled
        with self._locked() as base:
            held, (token, broken) = self._held(base, name), self._tokens(base, name)
            if held is not None and held.owner.nonce != owner.nonce:
                return t.Held(held, held.remaining)
            token, ttl = (held.token, held.ttl) if held else (max(token, floor) + 1, ttl)
            row = (name, token, broken, ttl, msgspec.json.encode(owner), self._settings.clock.now() + ttl)
            base.execute("REPLACE INTO lease VALUES (?,?,?,?,?,?)", row)
            return t.Granted(t.Grant(name, token, owner.nonce, ttl))

    def withdraw(self, name: str, owner: t.Owner) -> None:
        """There is no line."""

    def renew(self, grants: Sequence[t.Grant]) -> list[t.RenewAnswer]:
        """Extend each grant that is current."""
        try:
            with self._locked() as base:
                return [self._renew(base, grant) for grant in grants]
        except BackendUnavailable as error:
            return [t.Unknown(str(error)) for _ in grants]

    def _renew(self, base: sqlite3.Connection, grant: t.Grant) -> t.RenewAnswer:
        held, (token, broken) = self._held(base, grant.name), self._tokens(base, grant.name)
        if held is not None and (held.token, held.owner.nonce) == (grant.token, grant.nonce):
            until = self._settings.clock.now() + held.ttl
            base.execute("UPDATE lease SET expires=? WHERE name=?", (until, grant.name))
            return t.Renewed(held.ttl)
        if broken > grant.token:
            return t.Gone(t.LossReason.BROKEN)
        return t.Gone(t.LossReason.TAKEN if token > grant.token else t.LossReason.EXPIRED)

    def release(self, grant: t.Grant) -> bool:
        """End the lease if its nonce is ours."""
        with self._locked() as base:
            held = self._held(base, grant.name)
            if held is None or held.owner.nonce != grant.nonce:
                return False
            base.execute("UPDATE lease SET owner='' WHERE name=?", (grant.name,))
            return True

    def holder(self, name: str) -> t.LeaseRecord | None:
        """Return the holder."""
        with self._locked() as base:
            return self._held(base, name)

    def leases(self, prefix: str = "") -> list[t.LeaseRecord]:
        """Return all holders below a prefix."""
        with self._locked() as base:
            names = [name for (name,) in base.execute("SELECT name FROM lease ORDER BY name").fetchall()]
            return [held for name in names if name.startswith(prefix) and (held := self._held(base, name))]

    def break_lease(self, name: str) -> int:
        """End the lease and raise the token."""
        with self._locked() as base:
            raised = self._tokens(base, name)[0] + 1
            base.execute("REPLACE INTO lease VALUES (?,?,?,0,'',0)", (name, raised, raised))
            return raised

    def claim(self, scope: str, claim: t.Claim) -> None:
        """Register a greater token, or the same again."""
        with self._locked() as base:
            old = self._claim(base, scope)
            same = old is not None and (old.token, old.owner.nonce) == (claim.token, claim.owner.nonce)
            if old is not None and claim.token <= old.token and not same:
                raise StaleToken(f"claim of {scope!r} refused: {old.token} is registered", old.token)  # noqa: EM102, TRY003 -- short
            base.execute("REPLACE INTO claim VALUES (?,?,?)", (scope, claim.token, msgspec.json.encode(claim)))

    def _claim(self, base: sqlite3.Connection, scope: str) -> t.Claim | None:
        row = base.execute("SELECT data FROM claim WHERE scope=?", (scope,)).fetchone()
        return msgspec.json.decode(row[0], type=t.Claim) if row else None

    def put_marker(self, scope: str, record: t.MarkerRecord, token: int) -> None:
        """Store a record under the claimed token."""
        with self._locked() as base:
            claim, key = self._claim(base, scope), (scope, record.step, record.revision)
            if (floor := claim.token if claim else 0) != token or not claim:
                raise StaleToken(f"marker of {scope!r} refused: {floor} is registered", floor)  # noqa: EM102, TRY003 -- short
            query = "SELECT data FROM marker WHERE scope=? AND step=? AND revision=?"
            old = [_record(row[0]) for row in base.execute(query, key).fetchall()]
            if any(each and each.state is t.MarkerState.DONE and each != record for each in old):
                raise AlreadyDone(f"step {record.step!r} is done already")  # noqa: EM102, TRY003 -- short
            if not any(each and record.late_for(each) for each in old):
                base.execute("REPLACE INTO marker VALUES (?,?,?,?)", (*key, msgspec.json.encode(record)))

    def markers(self, scope: str) -> t.MarkerView:
        """Return claim and records; damaged ones are left out."""
        with self._locked() as base:
            rows = base.execute("SELECT data FROM marker WHERE scope=?", (scope,)).fetchall()
            return t.MarkerView(self._claim(base, scope), tuple(filter(None, (_record(row[0]) for row in rows))))

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Forget a record."""
        with self._locked() as base:
            key = (scope, step, revision)
            return base.execute("DELETE FROM marker WHERE scope=? AND step=? AND revision=?", key).rowcount > 0

    def scopes(self) -> list[str]:
        """Return known scopes."""
        with self._locked() as base:
            return [
                row[0] for row in base.execute("SELECT scope FROM claim UNION SELECT scope FROM marker ORDER BY scope")
            ]

    def watch(self) -> Watch:
        """Return a channel that polls."""
        return PollingWatch()

    def notify(self, topic: t.Topic) -> None:
        """Nobody listens."""

    def ping(self) -> None:
        """Open the file and lock it."""
        with self._locked():
            return

    def describe(self) -> dict[str, str]:
        """Return what there is to say."""
        return {"kind": "sqlite", "address": self._path, "version": sqlite3.sqlite_version}

    def close(self) -> None:
        """Nothing is kept open."""


def _record(data: bytes) -> t.MarkerRecord | None:
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(data, type=t.MarkerRecord)
    return None
