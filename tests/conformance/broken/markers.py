"""Stores that break a promise about markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from coordinate.errors import AlreadyDone, StaleToken
from coordinate.types import MarkerState
from tests.conformance.broken.sound import Sound

if TYPE_CHECKING:
    from coordinate.types import Claim, MarkerRecord, MarkerView


class EqualClaimTaken(Sound):
    """The same token of another owner takes the claim."""

    def claim(self, scope: str, claim: Claim) -> None:
        """Compare with >= only."""
        held = self._store.claims.get(scope)
        if held is not None and held.token == claim.token:
            self._store.claims[scope] = claim
            return
        super().claim(scope, claim)


class SmallerClaimTaken(Sound):
    """The last one to claim leads."""

    def claim(self, scope: str, claim: Claim) -> None:
        """Do not compare."""
        self._store.claims.pop(scope, None)
        super().claim(scope, claim)


class WritesWithoutClaim(Sound):
    """Any token may write."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Take the claimed token."""
        claim = self._store.claims.get(scope)
        if claim is None:
            self._store.markers[scope][(record.step, record.revision)] = record
            return
        super().put_marker(scope, record, min(token, claim.token))


class GreaterTokenWrites(Sound):
    """A token that nobody claimed may write if it is great enough."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Take the claimed token."""
        claim = self._store.claims.get(scope)
        super().put_marker(scope, record, claim.token if claim and token > claim.token else token)


class DoneOverwritten(Sound):
    """Done is a record like any other."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Write all the same."""
        try:
            super().put_marker(scope, record, token)
        except AlreadyDone:
            self._store.markers[scope][(record.step, record.revision)] = record


class LateProgressStored(Sound):
    """The last record to arrive is the last one, however long it was on its way."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Write all the same."""
        super().put_marker(scope, record, token)
        self._store.markers[scope][(record.step, record.revision)] = record


class ProgressTakenForLate(Sound):
    """No progress after an end, not even of another attempt."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Leave out what says in progress."""
        stored = self._store.markers[scope].get((record.step, record.revision))
        if record.state is MarkerState.IN_PROGRESS and stored is not None and stored.state is MarkerState.FAILED:
            return
        super().put_marker(scope, record, token)


class StaleWithoutFloor(Sound):
    """A refusal does not say which token would do."""

    def claim(self, scope: str, claim: Claim) -> None:
        """Lose the floor."""
        try:
            super().claim(scope, claim)
        except StaleToken as stale:
            message = "stale"
            raise StaleToken(message) from stale


class ClaimForgetsRecords(Sound):
    """A new leader begins with nothing."""

    def claim(self, scope: str, claim: Claim) -> None:
        """Clear the scope."""
        super().claim(scope, claim)
        self._store.markers[scope].clear()


class DeleteLies(Sound):
    """There was always a record to delete."""

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Say yes."""
        super().delete_marker(scope, step, revision)
        return True


class DeleteTakesAll(Sound):
    """A reset of one step resets its neighbours."""

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Clear the scope."""
        found = super().delete_marker(scope, step, revision)
        self._store.markers[scope].clear()
        return found


class RevisionsCut(Sound):
    """Long revisions are cut off."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Keep the beginning."""
        super().put_marker(scope, msgspec.structs.replace(record, revision=record.revision[:255]), token)


class CaseIgnored(Sound):
    """Names that differ in case only are one, as on some file systems."""

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Write in small letters."""
        super().put_marker(scope, msgspec.structs.replace(record, step=record.step.lower()), token)


class NotesLost(Sound):
    """A field that nobody thought of is not stored."""

    def markers(self, scope: str) -> MarkerView:
        """Drop the notes."""
        view = super().markers(scope)
        records = tuple(msgspec.structs.replace(record, notes={}) for record in view.records)
        return msgspec.structs.replace(view, records=records)


CAUGHT_BY: dict[type[Sound], str] = {
    EqualClaimTaken: "test_the_same_token_of_another_owner_is_refused",
    SmallerClaimTaken: "test_a_greater_token_takes_the_claim",
    WritesWithoutClaim: "test_writing_without_a_claim_is_refused",
    GreaterTokenWrites: "test_a_token_that_was_never_claimed_is_refused",
    DoneOverwritten: "test_done_is_accepted_once",
    LateProgressStored: "test_a_late_progress_record_does_not_overwrite_a_later_state[MarkerState.FAILED]",
    ProgressTakenForLate: "test_progress_that_is_not_late_is_stored",
    StaleWithoutFloor: "test_a_greater_token_takes_the_claim",
    ClaimForgetsRecords: "test_records_survive_a_new_claim",
    DeleteLies: "test_deleting_an_unknown_record_says_so",
    DeleteTakesAll: "test_a_reset_forgets_one_record_only",
    RevisionsCut: "test_long_revisions_are_kept_apart",
    CaseIgnored: "test_records_of_steps_and_revisions_are_apart",
    NotesLost: "test_a_record_is_read_back_whole",
}
