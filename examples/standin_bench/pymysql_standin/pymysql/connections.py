"""A connection with PyMySQL's shape: same constructor arguments, same error numbers, sqlite underneath."""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from . import _sessions, _sql, err
from ._administration import administer
from ._catalogue import catalogue
from ._store import Store
from .cursors import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

# The arguments of PyMySQL that mean nothing here; any other name is a TypeError, as there.
_IGNORED = frozenset(
    (
        *(
            "charset",
            "collation",
            "sql_mode",
            "read_default_file",
            "read_default_group",
            "conv",
            "use_unicode",
        ),
        *(
            "client_flag",
            "connect_timeout",
            "write_timeout",
            "local_infile",
            "max_allowed_packet",
            "compress",
        ),
        *(
            "auth_plugin_map",
            "bind_address",
            "binary_prefix",
            "program_name",
            "server_public_key",
            "named_pipe",
        ),
        *("ssl", "ssl_ca", "ssl_cert", "ssl_disabled", "ssl_key", "ssl_key_password", "ssl_verify_cert"),
        "ssl_verify_identity",
    )
)
Result = tuple[list[tuple[Any, ...]], Any, int, int]
_BUSY_LIMIT = 30.0


class Connection:
    """One session on the stand-in server.

    Promises PyMySQL's visible behaviour for the SQL of this example. Does not promise any other SQL,
    repeatable reads, two open writing transactions in one database, or that a killed session's transaction
    is undone before its client notices the kill.
    """

    def __init__(  # noqa: PLR0913 - the driver's own signature
        self,
        *,
        user: str | None = None,
        password: str | bytes = "",
        host: str | None = None,
        database: str | None = None,
        unix_socket: str | None = None,
        port: int = 0,
        autocommit: bool | None = False,
        cursorclass: type[Cursor] = Cursor,
        defer_connect: bool = False,
        read_timeout: float | None = None,
        init_command: str | None = None,
        **options: Any,  # noqa: ANN401 - checked below, as the driver does
    ) -> None:
        """Remember everything and connect, unless asked to wait."""
        self.db = options.pop("db", None) or database
        self.password = options.pop("passwd", None) or password
        unknown = set(options) - _IGNORED
        if unknown:
            message = f"unexpected keyword arguments: {sorted(unknown)}"
            raise TypeError(message)
        if isinstance(self.password, bytes):
            self.password = self.password.decode()
        self.user, self.host, self.port, self.unix_socket = (
            user or "",
            host or "localhost",
            port or 3306,
            unix_socket,
        )
        self.cursorclass, self.init_command, self._read_timeout = cursorclass, init_command, read_timeout
        self._autocommit = bool(autocommit)
        self.variables: dict[str, str] = {}
        self._file: sqlite3.Connection | None = None
        self._session: _sessions.Session | None = None
        if not defer_connect:
            self.connect()

    def connect(self, sock: object = None) -> None:
        """Reach the server, log in, choose the database."""
        del sock
        self.store = Store(self.host, self.port, by_socket=bool(self.unix_socket))
        self.allowed = self.store.login(self.user, str(self.password))
        if self.db:
            self.check_database(self.db, must_exist=True)
        self._session = _sessions.Session(self.store, self.user, self.db)
        self._open_file()
        if self.init_command:
            self.execute(self.init_command)

    def cursor(self, cursor: type[Cursor] | None = None) -> Cursor:
        """Return a cursor."""
        return (cursor or self.cursorclass)(self)

    def begin(self) -> None:
        """Start a transaction."""
        self.execute("BEGIN")

    def commit(self) -> None:
        """Make the transaction permanent."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction."""
        self._end("ROLLBACK")

    def _end(self, how: str) -> None:
        self.check_alive()
        if self._file and self._file.in_transaction:
            self._file.execute(how)
        self._live().update(in_use=False)

    def close(self) -> None:
        """Say goodbye; an open transaction is undone."""
        if self._session is None:
            raise err.Error(0, "Already closed")
        self._drop()

    def autocommit(self, value: bool) -> None:  # noqa: FBT001 - the driver's own signature
        """Switch autocommit; switching it on commits."""
        if value:
            self.commit()
        self._autocommit = bool(value)

    def get_autocommit(self) -> bool:
        """Return whether every statement commits itself."""
        return self._autocommit

    def select_db(self, database: str | bytes) -> None:
        """Use another database."""
        name = database.decode() if isinstance(database, bytes) else database
        self.check_database(name, must_exist=True)
        self.db = name
        self._open_file()
        self._live().update(db=name)

    def ping(self, reconnect: bool = False) -> None:  # noqa: FBT001, FBT002 - the driver's own signature
        """Fail when the server or this session is gone, or connect again."""
        try:
            self.check_alive()
        except err.Error:
            if not reconnect:
                raise
            self.connect()

    def thread_id(self) -> int:
        """Return the id that KILL and the process list use."""
        return self._live().id

    def get_server_info(self) -> str:
        """Return the version text."""
        return "10.11.0-MariaDB-standin"

    def escape_string(self, text: str) -> str:
        """Return a text safe between quotes."""
        return text.replace("\\", "\\\\").replace("'", "\\'")

    @property
    def open(self) -> bool:
        """Return whether nobody closed it."""
        return self._session is not None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, without a commit, as the driver does."""
        del kind, error, trace
        if self.open:
            self.close()

    def _live(self) -> _sessions.Session:
        if self._session is None:
            raise err.InterfaceError(0, "")
        return self._session

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._session is not None:
            self._session.close()
        self._file = self._session = None

    def check_alive(self) -> None:
        """Raise 2013 when the session was killed or the server went away."""
        if self._live().killed or not self.store.up:
            self._drop()
            raise err.OperationalError(2013, "Lost connection to MySQL server during query")

    def check_database(self, name: str, *, must_exist: bool = False) -> None:
        """Raise 1044 without a right to that database, 1049 when it does not exist."""
        if not self.allowed & {"*", name}:
            # Rights may have been granted after this login.
            self.allowed = self.store.login(self.user, str(self.password))
        if not self.allowed & {"*", name}:
            message = f"Access denied for user '{self.user}'@'%' to database '{name}'"
            raise err.OperationalError(1044, message)
        if must_exist and not self.store.path(name).exists():
            raise err.OperationalError(1049, f"Unknown database '{name}'")

    def visible_databases(self) -> list[str]:
        """Return the databases that this user can see."""
        return [name for name in self.store.databases() if self.allowed & {"*", name}]

    def process_rows(self) -> list[tuple[object, ...]]:
        """Return the process list: all sessions for root, else those of the own user."""
        now = time.monotonic()
        rows: list[tuple[object, ...]] = []
        for session in _sessions.listing(self.store):
            if session["user"] == self.user or "*" in self.allowed:
                seconds = int(now - session["since"])
                shown = (session["user"], session["host"], session["db"], session["command"], seconds)
                rows.append((session["id"], *shown, "", session["info"]))
        return rows

    def _open_file(self) -> None:
        if self._file is not None:
            self._file.close()
        path = str(self.store.path(self.db)) if self.db else ":memory:"
        self._file = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_LIMIT, check_same_thread=False)
        self._file.execute("PRAGMA synchronous = OFF")
        values = {
            "connection_id": self.thread_id,
            "database": lambda: self.db,
            "version": self.get_server_info,
        }
        values |= {
            "user": lambda: f"{self.user}@{self.store.client}",
            "now_": lambda: str(dt.datetime.now(dt.UTC)),
        }
        for name, function in values.items():
            self._file.create_function(name, 0, function)
        self._file.create_function("sleep", 1, self._sleep)
        self._file.create_function("get_lock", 2, lambda _name, _seconds: 1)

    def _sleep(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        limit = time.monotonic() + self._read_timeout if self._read_timeout else end
        while time.monotonic() < end and not self._live().killed and self.store.up:
            if time.monotonic() > limit:
                raise TimeoutError
            time.sleep(0.005)
        return 0

    def execute(self, sql: str, args: object = None) -> Result:
        """Run one statement as the server would: (rows, description, row count, last id)."""
        self.check_alive()
        session = self._live()
        session.update(command="Query", info=sql, in_use=session.fields["in_use"])
        try:
            rows = administer(self, sql if args is None else self._filled(sql, args))
            if rows is not None:
                return rows, None if not rows else [(f"c{i}",) for i in range(len(rows[0]))], len(rows), 0
            return self._execute_in_file(sql, args)
        except sqlite3.Error as error:
            self.check_alive()
            if "user-defined function" in str(error):
                self._drop()
                raise err.OperationalError(2013, "Lost connection to MySQL server during query (timed out)") from error
            raise err.from_sqlite(error) from error
        finally:
            if self._session is not None:
                busy = bool(self.db) and not self._autocommit and not _sql.defines(sql)
                ends = sql.strip().rstrip(";").upper() in ("COMMIT", "ROLLBACK")
                session.update(command="Sleep", info=None, in_use=busy and not ends)

    def _filled(self, sql: str, args: object) -> str:
        """Put the arguments into the text, for statements that sqlite never sees."""
        values = args if isinstance(args, (list, tuple)) else (args,)
        if isinstance(args, dict) or sql.count("%s") != len(values):
            return sql
        words: Iterator[str] = iter(
            str(value) if isinstance(value, int) else f"'{self.escape_string(str(value))}'" for value in values
        )
        return "".join(part + next(words, "") for part in sql.split("%s"))

    def _execute_in_file(self, sql: str, args: object) -> Result:
        text, values = _sql.translate(sql, args)
        of_server = "information_schema" in sql.lower() or "mysql.user" in sql.lower()
        if not self.db and not of_server and " from " in sql.lower():
            raise err.OperationalError(1046, "No database selected")
        if self.db and not self.store.path(self.db).exists():
            raise err.OperationalError(1049, f"Unknown database '{self.db}'")
        file = self._file
        assert file is not None  # noqa: S101 - check_alive() has seen to it
        if _sql.defines(sql) and file.in_transaction:
            file.execute("COMMIT")
        if _sql.writes(sql) and not self._autocommit and not file.in_transaction:
            file.execute("BEGIN IMMEDIATE")
        if of_server:
            return catalogue(self, text, values)
        cursor = file.execute(text, values)
        self.check_alive()
        rows = cursor.fetchall()
        return (
            rows,
            cursor.description,
            cursor.rowcount if _sql.writes(sql) else len(rows),
            cursor.lastrowid or 0,
        )

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run sqlite's own SQL on the current database."""
        if self._file is None or not self.db:
            raise err.OperationalError(1046, "No database selected")
        return self._file.execute(sql).fetchall()
