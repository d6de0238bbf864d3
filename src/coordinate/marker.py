"""Markers: durable, fenced records of what happened to a step of a revision.

A leader first claims its scope with its lease's token; from then on only records that carry exactly this token are
accepted. What is promised: nothing of an older leader is accepted after a newer one has claimed, and ``done`` is
accepted once. What is not: that a step's effects ran only once; a step has to be re-runnable.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from coordinate._names import check_name, check_revision
from coordinate.errors import BackendUnavailable, StaleToken
from coordinate.types import Claim, MarkerRecord, MarkerState, Topic, Verdict

if TYPE_CHECKING:
    from coordinate._clock import Clock
    from coordinate.backend import Backend
    from coordinate.lease import Lease
    from coordinate.types import MarkerView

DETAIL_LIMIT = 4096
_TRIES = 5
_PAUSE = 0.3


class Markers:
    """The records of one scope.

    Args:
        backend: the marker store.
        scope: what the steps act on, for example one site on one volume; never contains the revision.
        clock: the coordinator's.
        announce: the lease store, if it is another one: changes are announced there as well, because a marker
            store on files may only be polled.
    """

    def __init__(self, backend: Backend, scope: str, clock: Clock, announce: Backend | None = None) -> None:
        self.backend = backend
        self.scope = check_name(scope, "scope")
        self._clock = clock
        self._announce = announce
        self._token = 0
        self._owner = ""

    @property
    def topic(self) -> Topic:
        """Return what a waiter watches."""
        return Topic("markers", self.scope)

    def view(self) -> MarkerView:
        """Return the claim and the records as they are now.

        Raises:
            BackendUnavailable: no usable answer.
        """
        return self.backend.markers(self.scope)

    def claim(self, lease: Lease, lease_store: str) -> None:
        """Register the token of a held lease; needed before the first write.

        Raises:
            LeaseLost: the lease is not held.
            StaleToken: a newer leader has claimed; acquire again with a greater token (``floor``).
            BackendUnavailable: no usable answer.
        """
        lease.check()
        claim = Claim(lease.token, lease.owner, lease_store, lease.timing.ttl)
        self.backend.claim(self.scope, claim)
        self._token, self._owner = lease.token, str(lease.owner)
        self._tell()

    def begin(
        self, step: str, revision: str, before: MarkerRecord | None = None, fingerprint: str = ""
    ) -> MarkerRecord:
        """Record that an attempt begins; counts the one before as a crash if it has no recorded end.

        Counts belong to a fingerprint; notes do not: what an attempt left half done is there whatever it depended on.

        Raises:
            StaleToken, AlreadyDone, BackendUnavailable: nothing began.
        """
        check_revision(revision)
        same = before is not None and before.fingerprint == fingerprint
        past = before if before is not None and same else MarkerRecord(step, revision, MarkerState.FAILED)
        crashed = past.state is MarkerState.IN_PROGRESS
        record = MarkerRecord(
            step,
            revision,
            MarkerState.IN_PROGRESS,
            self._token,
            self._owner,
            started=self._clock.wall(),
            attempts=past.attempts + 1,
            failures=past.failures,
            crashes=past.crashes + crashed,
            detail=past.detail if crashed else "",
            fingerprint=fingerprint,
            notes={} if before is None else before.notes,
        )
        return self._put(record)

    def update(
        self,
        record: MarkerRecord,
        *,
        detail: str | None = None,
        notes: dict[str, str] | None = None,
        tries: int = _TRIES,
    ) -> MarkerRecord:
        """Record progress of an attempt: its last lines and notes. ``tries`` bounds how long an outage is borne."""
        text = record.detail if detail is None else _bounded(detail)
        return self._put(msgspec.structs.replace(record, detail=text, notes={**record.notes, **(notes or {})}), tries)

    def beat(self, record: MarkerRecord) -> MarkerRecord:
        """Show that an attempt is under way although nothing else of it changes; one try."""
        record = msgspec.structs.replace(record, beats=record.beats + 1)
        # Nobody is told: it is for those who compare what they read, not for those who wait for an end.
        self._put_stubbornly(record, 1)
        return record

    def done(self, record: MarkerRecord, detail: str = "") -> MarkerRecord:
        """Record the attempt's success."""
        return self._end(record, MarkerState.DONE, detail)

    def failed(
        self, record: MarkerRecord, detail: str, exit_code: int = 1, verdict: Verdict = Verdict.OPEN
    ) -> MarkerRecord:
        """Record the attempt's failure; a refusal counts against nothing. ``verdict``: is it tried again?"""
        failures = record.failures + (verdict is not Verdict.REFUSED)
        failure = msgspec.structs.replace(record, failures=failures, exit_code=exit_code, verdict=verdict)
        return self._end(failure, MarkerState.FAILED, detail)

    def given_up(self, record: MarkerRecord) -> MarkerRecord:
        """Record that attempts which never ended have spent the budget."""
        taken = msgspec.structs.replace(record, token=self._token, verdict=Verdict.SPENT)
        return self._end(taken, MarkerState.FAILED, record.detail)

    def interrupted(self, record: MarkerRecord, detail: str) -> MarkerRecord:
        """Record that the attempt was stopped on request; counts against nothing."""
        return self._end(record, MarkerState.INTERRUPTED, detail, tries=1)

    def reset(self, step: str, revision: str) -> bool:
        """Give a step a fresh failure budget, or have it done again, by order of an operator. False: no record.

        What an unsuccessful attempt has noted stays: it says what is half done, and the next attempt has to know.
        """
        found = self._forgive(step, revision) or self.backend.delete_marker(self.scope, step, revision)
        self._tell()
        return found

    def _forgive(self, step: str, revision: str) -> bool:
        """Clear what counts against a step, under the present claim; False: there are no notes worth keeping."""
        for left in range(_TRIES - 1, -1, -1):
            view = self.view()
            record = view.find(step, revision)
            if record is None or not record.notes or record.state is MarkerState.DONE or view.claim is None:
                return False
            fresh = MarkerRecord(step, revision, MarkerState.INTERRUPTED, attempts=record.attempts, notes=record.notes)
            kept = msgspec.structs.replace(fresh, token=record.token, started=record.started, finished=record.finished)
            try:
                self.backend.put_marker(self.scope, kept, view.claim.token)
            except StaleToken:
                # Somebody has begun to lead in between. Deleting would succeed, but lose the notes.
                if not left:
                    raise
            else:
                return True
        return False

    def _end(self, record: MarkerRecord, state: MarkerState, detail: str, tries: int = _TRIES) -> MarkerRecord:
        ended = msgspec.structs.replace(record, state=state, finished=self._clock.wall(), detail=_bounded(detail))
        return self._put(ended, tries)

    def _put(self, record: MarkerRecord, tries: int = _TRIES) -> MarkerRecord:
        if not self._token:
            message = f"marker {record.step} of {self.scope!r} refused: claim the scope first"
            raise StaleToken(message)
        self._put_stubbornly(record, tries)
        self._tell()
        return record

    def _put_stubbornly(self, record: MarkerRecord, tries: int) -> None:
        """Repeat a write whose answer was lost: the same record is accepted twice."""
        for left in range(tries - 1, -1, -1):
            try:
                self.backend.put_marker(self.scope, record, self._token)
            except BackendUnavailable:
                if not left:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _tell(self) -> None:
        if self._announce is not None and self._announce is not self.backend:
            try:
                self._announce.notify(self.topic)
            except BackendUnavailable:
                # The poll under every wait is the net; a missed announcement delays, it does not lose.
                return


def _bounded(text: str) -> str:
    data = text.encode()
    return text if len(data) <= DETAIL_LIMIT else data[-DETAIL_LIMIT:].decode(errors="ignore")
