"""The only module that runs the bench's Python: commands under a lease, and questions that change nothing."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from coordinate.errors import BackendUnavailable, CommandFailed
from frappe_bootstrap import inspection
from frappe_bootstrap.codes import refuse
from frappe_bootstrap.settings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coordinate.steps import StepContext
    from frappe_bootstrap.record import Creation
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.waiting import Stop

Record = TypeVar("Record", bound=msgspec.Struct)

SHIM = Path(__file__).with_name("bench-shim")
ASK_TIMEOUT = 40.0
SETTLE_TIMEOUT = 30.0
_MOST_SESSIONS = 60
_TICK = 0.2
_ANNOUNCED = re.compile(r"database session \d+")
"""What the shim prints when it has announced a session: nobody but us has a use for it."""


class Settled(msgspec.Struct, frozen=True):
    """How the attempt to end sessions went."""

    ok: bool
    error: str
    errno: int


class Acted(msgspec.Struct, frozen=True):
    """How a change in the database went."""

    ok: bool = False
    error: str = ""
    errno: int = 0
    stale: int = 0
    """A higher token that has written to the record; nothing was changed."""
    foreign: str = ""
    """Why nothing was changed: what is there is not proved to be ours."""


class Line(Acted, frozen=True):
    """A line on the channel: an answer, or a session that was opened and its client as the server sees it."""

    session: int = 0
    host: str = ""


class Bench:
    """Runs the bench's own Python. No secret is in its arguments, its environment or its output.

    Args:
        settings: where the bench is and what is known about the server.
        stop: tells when to stop waiting for an answer.
        environ: our environment.
    """

    def __init__(self, settings: Settings, stop: Stop, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._stop = stop
        self._ran_under = 0
        self._known: inspection.State | None = None
        self._environ = {
            **{name: value for name, value in child_environment(environ).items() if name not in _OURS},
            "FRAPPE_STREAM_LOGGING": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def sleep(self, context: StepContext, seconds: float) -> None:
        """Sleep in the middle of a step, unless asked to stop, and only as long as the lease is held.

        Raises:
            Interrupted, LeaseLost: instead.
        """
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            context.check()
            self._stop.sleep(min(left, _TICK))

    def inspect(self, *, root: bool = False, reachable: bool = False) -> inspection.Answer:
        """Return what the config files and the database say about the site.

        Args:
            root: look with root's login, too, if it is known: does a database of that name exist?
            reachable: try a login that nobody has where no other one can be tried: a refusal is an answer.

        Raises:
            BackendUnavailable: the bench's Python gave no answer.
            Interrupted: asked to stop.
        """
        return self._ask({**self._request("inspect", root=root), "reachable": reachable})

    def state(self, *, root: bool = False) -> inspection.State:
        """Return the state of the site.

        Raises:
            BackendUnavailable: the server does not answer, which says nothing about the site.
        """
        answer = self.inspect(root=root)
        if answer.login is not None and (reason := inspection.unreachable(inspection.Answer(login=answer.login))):
            message = f"the database does not answer: {reason}"
            raise BackendUnavailable(message)
        self._known = inspection.classify(answer)
        return self._known

    def known_state(self, context: StepContext) -> inspection.State:
        """Return the state of the site, without another look where nobody can have changed it since the last one.

        That is: the last look came after our last command, that command ran under this very grant, and the lease
        is still held.

        Raises:
            LeaseLost: it is not.
            BackendUnavailable: as `state`.
        """
        context.check()
        known = self._known if context.lease.token == self._ran_under else None
        return known or self.state()

    def forget(self) -> None:
        """Forget what was seen: somebody else acts under our lease."""
        self._known = None

    def run(
        self,
        context: StepContext,
        *argv: str,
        secrets: Sequence[str] = (),
        creation: Creation | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> str:
        """Run a framework command under the lease; return its last lines of output.

        Each of its database sessions is in the marker's notes, durably, before its first statement.

        Raises:
            CommandFailed, LeaseLost, Interrupted: see `StepContext.run`.
        """
        name = " ".join(word for word in argv[:4] if not word.startswith("--db") and word not in secrets)
        hidden = sorted({*self._settings.secrets, *secrets})
        request = {"job": "bench", "argv": list(argv), "secrets": hidden, "creation": msgspec.to_builtins(creation)}
        with _Channel(request) as channel:

            def line(text: str) -> bool:
                """Look for sessions with each line: the shim prints one, for us alone, after it has announced one."""
                channel.note_sessions(context)
                is_ours = _ANNOUNCED.fullmatch(text) is not None
                if on_line is not None and not is_ours:
                    on_line(text)
                return not is_ours

            return self._run(context, channel, f"bench {name}", line)

    def settle(self, context: StepContext, sessions: Sequence[tuple[int, str]]) -> str | None:
        """End database sessions of an earlier attempt; return why that was not possible, or None."""
        request = {**self._request("settle", root=True), "sessions": list(sessions), "timeout": SETTLE_TIMEOUT}
        with _Channel(request) as channel:
            try:
                self._run(context, channel, "settle", lambda _: None)
            except CommandFailed as error:
                return str(error)
            answers = channel.read(Settled)
        if not answers:
            return "no answer"
        settled = answers[0]
        login = inspection.Login(errno=settled.errno, error=settled.error)
        if not settled.ok and inspection.unreachable(inspection.Answer(login=login)):
            message = f"the database does not answer: {settled.error}"
            raise BackendUnavailable(message)
        return None if settled.ok else settled.error

    def write_record(
        self, context: StepContext, name: str, value: msgspec.Struct | None, *, force: bool = False
    ) -> None:
        """Write a row of our record into the site's database under the lease's token; None removes the row.

        Args:
            context: of the step.
            name: ``creation``, ``revision`` or ``migrating``.
            value: what it says.
            force: also where a higher token has written; an operator's decision.

        Raises:
            StepRefused: a higher token has written there, although the lease is held: it is of another lease store.
            CommandFailed: it could not be written.
            BackendUnavailable: the database does not answer; whether it was written is not known.
        """
        row = msgspec.to_builtins(value)
        request = {**self._request("record", root=False), "name": name, "value": row, "force": force}
        done = self.act(context, {**request, "token": context.lease.token})
        if done.stale:
            context.check()
            refuse(
                f"the record in the database was written under token {done.stale}, ours is {context.lease.token}: the "
                "database was used with another lease store. If it belongs here: frappe-bootstrap adopt "
                f"{self._settings.site}"
            )
        if not done.ok:
            message = f"the record in the database could not be written: {done.error}"
            raise CommandFailed(message, 1, message)

    def prepare(self, context: StepContext, creation: Creation, password: str, *, fresh: bool, force: bool) -> Acted:
        """Make database, record and user of a new site; nothing is dropped.

        Args:
            context: of the step.
            creation: noted in the marker beforehand.
            password: of the site's user.
            fresh: nothing of that name may be there yet.
            force: fill a database that is not proved to be ours; an operator's decision.
        """
        request = {**self._request("prepare", root=True), "fresh": fresh, "site_password": password}
        request["rds"] = self._settings.database.rds
        return self._act_on(context, request, creation, force=force)

    def discard(self, context: StepContext, creation: Creation, *, force: bool) -> Acted:
        """Drop database and user of a half-made site that the creation's nonce proves to be ours."""
        return self._act_on(context, self._request("discard", root=True), creation, force=force)

    def _act_on(self, context: StepContext, request: dict[str, object], creation: Creation, *, force: bool) -> Acted:
        row = msgspec.to_builtins(creation)
        return self.act(context, {**request, "creation": row, "force": force, "timeout": SETTLE_TIMEOUT})

    def act(self, context: StepContext, request: dict[str, object]) -> Acted:
        """Change something in the database under the lease; the sessions are noted beforehand.

        Raises:
            BackendUnavailable: the database does not answer.
        """
        done: list[Acted] = []
        with _Channel(request) as channel:

            def line(text: str) -> bool:
                """Lines announce sessions; whatever comes after the last of them is the answer."""
                done.extend(channel.note_sessions(context))
                return _ANNOUNCED.fullmatch(text) is None

            self._run(context, channel, str(request["job"]), line)
            done.extend(channel.read(Acted))
        acted = done[-1] if done else Acted(error="no answer")
        login = inspection.Login(errno=acted.errno, error=acted.error)
        if not acted.ok and done and inspection.unreachable(inspection.Answer(login=login)):
            message = f"the database does not answer: {acted.error}"
            raise BackendUnavailable(message)
        return acted

    def _run(self, context: StepContext, channel: _Channel, name: str, line: Callable[[str], object]) -> str:
        self._known, self._ran_under = None, context.lease.token
        return context.run(
            self._command(channel.theirs),
            env=self._environ,
            cwd=str(self._settings.sites),
            pass_fds=(channel.theirs.fileno(),),
            name=name,
            on_line=line,
        )

    def _command(self, theirs: socket.socket) -> list[str]:
        return [str(self._settings.python), str(SHIM), str(theirs.fileno())]

    def _request(self, job: str, *, root: bool) -> dict[str, object]:
        database = self._settings.database
        address = {"db_type": database.kind, "db_host": database.host, "db_port": database.port}
        request: dict[str, object] = {
            "job": job,
            "site": self._settings.site,
            "db_name": database.name,
            "server": {**address, **database.tls.request()},
            "password": database.password,
        }
        if root and database.root_password is not None:
            request["root"] = [database.root_user, database.root_password]
        return request

    def _ask(self, request: Mapping[str, object]) -> inspection.Answer:
        with _Channel(request) as channel:
            fds = (channel.theirs.fileno(),)
            child = subprocess.Popen(
                self._command(channel.theirs),
                env=self._environ,
                cwd=self._settings.sites,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            with child:
                try:
                    answers = channel.wait(self._stop, child)
                finally:
                    child.kill()
                errors = child.stderr.read().decode(errors="replace") if child.stderr else ""
        if not answers:
            last = errors.strip().rpartition("\n")[2][:300] or "no answer"
            message = f"the bench's Python ({self._settings.python}) could not look at the site: {last}"
            raise BackendUnavailable(message)
        return answers[0]


# They describe our own environment, not the bench's.
_OURS = frozenset({"VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH"})


class _Channel:
    """Our end and the shim's end of one socket; the request is in it before the shim starts, as far as it fits."""

    def __init__(self, request: Mapping[str, object]) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._rest = b""
        data = msgspec.json.encode(request) + b"\n"
        # A socket holds about 200 KB; a record with thousands of patches is longer, and nobody reads before the start.
        if left := data[self._ours.send(data, socket.MSG_DONTWAIT) :]:
            threading.Thread(target=self._send, args=(left,), daemon=True).start()

    def _send(self, data: bytes) -> None:
        """Send what did not fit, as the shim reads; if it ends before, so does this."""
        with contextlib.suppress(OSError):
            self._ours.sendall(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self.theirs.close()

    def read(self, kind: type[Record]) -> list[Record]:
        """Return the answers that have arrived."""
        try:
            while data := self._ours.recv(65536, socket.MSG_DONTWAIT):
                self._rest += data
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return [msgspec.json.decode(line, type=kind) for line in lines]

    def note_sessions(self, context: StepContext) -> list[Acted]:
        """Write new database sessions into the marker, then let the command go on; return other answers."""
        answers = []
        for opened in self.read(Line):
            if not opened.session:
                answers.append(Acted(opened.ok, opened.error, opened.errno, opened.stale, opened.foreign))
                continue
            known = context.record.notes.get("sessions", "").split()
            known.append(f"{opened.session}@{opened.host}")
            context.note(sessions=" ".join(known[-_MOST_SESSIONS:]))
            # Only now may its first statement go out: whoever finds the record can end the session.
            self._ours.send(b"+")
        return answers

    def wait(self, stop: Stop, child: subprocess.Popen[bytes]) -> list[inspection.Answer]:
        """Return the answer, or nothing if the child ended or took too long."""
        limit = time.monotonic() + ASK_TIMEOUT
        while time.monotonic() < limit:
            ended = child.poll() is not None
            if answers := self.read(inspection.Answer):
                return answers
            if ended:
                return []
            select.select([self._ours.fileno(), stop.fileno()], [], [], _TICK)
            stop.check()
        return []


def sessions_of(notes: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the database sessions that a marker's notes name."""
    pairs = [word.partition("@") for word in notes.get("sessions", "").split()]
    return [(int(number), host) for number, _, host in pairs]


__all__ = ["SHIM", "Bench", "sessions_of"]
