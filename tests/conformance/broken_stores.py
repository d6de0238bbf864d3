"""Deliberately broken stores, and the contract on each. Not collected by itself: `test_kit_catches` runs it.

Each class is the reference store with one promise broken, and names the tests that have to fail on it.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from coordinate.backends.memory import MemoryBackend, MemoryWatch
from coordinate.errors import AlreadyDone, BackendUnavailable, StaleToken
from coordinate.testing import FakeClock, OpenBackend, StoreContract, UnavailablePortContract, opener
from coordinate.types import Capability, Claim, Gone, Grant, Granted, Held, MarkerRecord, MarkerView, Renewed, Topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coordinate.backend import Backend, Watch
    from coordinate.types import AcquireAnswer, LeaseRecord, Owner, RenewAnswer

_NUMBERS = itertools.count()


class Sound(MemoryBackend):
    """Nothing is broken: the control."""

    def forget(self, name: str) -> None:
        """Drop a lease as if it had never been."""
        self._store.leases.pop(name, None)


class TokensRepeat(Sound):
    """Every grant has the same token."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Forget the counter."""
        if self._store.current(name) is None:
            self._store.tokens[name] = 0
        return super().acquire(name, owner, ttl, **more)


class NoFencing(Sound):
    """Everybody is granted everything."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Take it from whoever holds it."""
        held = self._store.current(name)
        if held is not None and held.owner.nonce != owner.nonce:
            self.forget(name)
        return super().acquire(name, owner, ttl, **more)


class FloorIgnored(Sound):
    """What a marker store knows counts for nothing."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Drop the floor."""
        return super().acquire(name, owner, ttl, **(more | {"floor": 0}))


class AcquireNotIdempotent(Sound):
    """A repeated request is a new grant."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Grant anew."""
        held = self._store.current(name)
        if held is not None and held.owner.nonce == owner.nonce:
            self.forget(name)
        return super().acquire(name, owner, ttl, **more)


class TtlChangesOnRepeat(Sound):
    """A repeated request gets another length than was granted."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Answer with what was asked for now."""
        answer = super().acquire(name, owner, ttl, **more)
        if isinstance(answer, Granted):
            return Granted(msgspec.structs.replace(answer.grant, ttl=ttl))
        return answer


class OneOwnerPerProcess(Sound):
    """Another owner of the same process counts as the holder."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Compare pids."""
        held = self._store.current(name)
        if held is not None and held.owner.pid == owner.pid:
            return Granted(held.grant)
        return super().acquire(name, owner, ttl, **more)


class RenewRevives(Sound):
    """A lease that is gone is renewed."""

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Say yes."""
        return [Renewed(grant.ttl) for grant in grants]


class RenewNeedsNoNonce(Sound):
    """Whoever knows the token may renew."""

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Take the holder's nonce."""
        held = [self._store.current(grant.name) for grant in grants]
        return super().renew(
            [
                msgspec.structs.replace(grant, nonce=lease.owner.nonce) if lease else grant
                for grant, lease in zip(grants, held, strict=True)
            ]
        )


class RenewOutOfOrder(Sound):
    """Answers come in some order."""

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Losses last."""
        return sorted(super().renew(grants), key=lambda answer: isinstance(answer, Gone))


class StrangersRelease(Sound):
    """Whoever knows the name may release."""

    def release(self, grant: Grant) -> bool:
        """Take the holder's nonce."""
        held = self._store.current(grant.name)
        return super().release(held.grant if held else grant)


class ReleaseNeedsTheToken(Sound):
    """A grant whose answer was lost cannot be given back."""

    def release(self, grant: Grant) -> bool:
        """Insist on the token."""
        held = self._store.current(grant.name)
        return held is not None and held.grant.token == grant.token and super().release(grant)


class WakeUpLost(Sound):
    """A release tells nobody."""

    def release(self, grant: Grant) -> bool:
        """Forget the line."""
        self._store.queues[grant.name].clear()
        return super().release(grant)


class WakesAll(Sound):
    """A release tells everybody."""

    def release(self, grant: Grant) -> bool:
        """Empty the line."""
        released = super().release(grant)
        while self._store.queues[grant.name]:
            self._store.wake_one(grant.name)
        return released


class TurnNotHandedOn(Sound):
    """A waiter that leaves takes its turn with it."""

    def withdraw(self, name: str, owner: Owner) -> None:
        """Only leave the line."""
        self._store.queues[name].pop(owner.nonce, None)


class NeverExpires(Sound):
    """A silent holder keeps its lease although expiry is declared."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Grant for ever."""
        answer = super().acquire(name, owner, ttl, **more)
        self._store.leases[name].expires = float("inf")
        return answer


class ShowsExpired(Sound):
    """The list of leases shows what is over."""

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Do not look at the clock."""
        return [self._record(lease) for name, lease in sorted(self._store.leases.items()) if name.startswith(prefix)]


class ListUnsorted(Sound):
    """The list of leases has no order."""

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return it backwards."""
        return super().leases(prefix)[::-1]


class PrefixIgnored(Sound):
    """The list of leases is always the whole."""

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Ask for all."""
        del prefix
        return super().leases()


class BreakRaisesNothing(Sound):
    """A broken lease leaves the token as it was."""

    def break_lease(self, name: str) -> int:
        """End it only."""
        self.forget(name)
        return self._store.tokens[name]


class HeldWithoutHolder(Sound):
    """Somebody holds it, nobody knows who."""

    def acquire(self, name: str, owner: Owner, ttl: float, **more: object) -> AcquireAnswer:
        """Drop the record."""
        answer = super().acquire(name, owner, ttl, **more)
        return Held(None, answer.retry_after) if isinstance(answer, Held) else answer


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


class ForgetfulWatch(MemoryWatch):
    """Draining an empty channel loses the topics."""

    def drain(self) -> frozenset[Topic]:
        """Report, and stop watching."""
        found = super().drain()
        self.topics.clear()
        return found


class MissesChanges(Sound):
    """A change between two looks is missed."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return ForgetfulWatch(self._store)


class RestlessWatch(MemoryWatch):
    """Stays readable for ever."""

    def fileno(self) -> int:
        """Return a descriptor that always is."""
        return self._always

    def __init__(self, store: object) -> None:
        super().__init__(store)
        import os

        self._always, end = os.pipe()
        os.close(end)

    def close(self) -> None:
        """Close that one, too."""
        import contextlib
        import os

        super().close()
        with contextlib.suppress(OSError):
            os.close(self._always)


class NeverRests(Sound):
    """A waiter never sleeps."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return RestlessWatch(self._store)


class BlockingWatch(MemoryWatch):
    """Waits for something to report."""

    def drain(self) -> frozenset[Topic]:
        """Take a while."""
        time.sleep(0.25)
        return super().drain()


class DrainBlocks(Sound):
    """Draining waits."""

    def watch(self) -> Watch:
        """Return such a channel."""
        return BlockingWatch(self._store)


class OneStoreManyIds(Sound):
    """Each client calls the store by another name."""

    @property
    def store_id(self) -> str:
        """Return a name of this object's own."""
        return f"memory:{id(self)}"


class CloseOnce(Sound):
    """The second close is an error."""

    closed = 0

    def close(self) -> None:
        """Insist, once."""
        self.closed += 1
        assert self.closed != 2


class DeclaresOtherProcesses(Sound):
    """Over-declared: no other process takes part."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return one too many."""
        return super().capabilities | {Capability.CROSS_PROCESS}


class DeclaresFloor(Sound):
    """Over-declared: tokens begin anew with each process."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return one too many."""
        return super().capabilities | {Capability.FLOOR}


class DeclaresDurable(Sound):
    """Over-declared: records end with the process."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return one too many."""
        return super().capabilities | {Capability.DURABLE_MARKERS}


class HidesExpiry(Sound):
    """Under-declared: leases do expire."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return one too few."""
        return super().capabilities - {Capability.EXPIRY}


class HidesWake(Sound):
    """Under-declared: releases do wake."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return one too few."""
        return super().capabilities - {Capability.WAKE}


CAUGHT_BY: dict[type[Sound], str] = {
    TokensRepeat: "test_tokens_grow_with_every_grant",
    NoFencing: "test_a_held_name_answers_held_with_the_holder",
    FloorIgnored: "test_tokens_start_above_the_floor",
    AcquireNotIdempotent: "test_acquire_is_idempotent_for_the_present_owner",
    TtlChangesOnRepeat: "test_a_repeated_acquire_gets_the_ttl_of_the_first",
    OneOwnerPerProcess: "test_two_owners_of_one_client_exclude_each_other",
    RenewRevives: "test_renewing_a_released_lease_is_gone",
    RenewNeedsNoNonce: "test_a_stranger_renews_nothing",
    RenewOutOfOrder: "test_renew_answers_for_each_grant_in_order",
    StrangersRelease: "test_a_stranger_releases_nothing",
    ReleaseNeedsTheToken: "test_a_grant_whose_answer_was_lost_is_released_by_its_nonce",
    WakeUpLost: "test_a_release_wakes_a_queued_waiter_where_declared",
    WakesAll: "test_a_release_wakes_one_waiter_and_no_herd",
    TurnNotHandedOn: "test_a_waiter_that_leaves_hands_its_turn_on",
    NeverExpires: "test_a_silent_holder_keeps_its_lease_exactly_where_no_expiry_is_declared",
    ShowsExpired: "test_an_expired_lease_is_not_shown",
    ListUnsorted: "test_holder_and_leases_show_what_is_held",
    PrefixIgnored: "test_holder_and_leases_show_what_is_held",
    BreakRaisesNothing: "test_breaking_ends_the_lease_and_raises_the_token",
    HeldWithoutHolder: "test_a_held_name_answers_held_with_the_holder",
    EqualClaimTaken: "test_the_same_token_of_another_owner_is_refused",
    SmallerClaimTaken: "test_a_greater_token_takes_the_claim",
    WritesWithoutClaim: "test_writing_without_a_claim_is_refused",
    GreaterTokenWrites: "test_a_token_that_was_never_claimed_is_refused",
    DoneOverwritten: "test_done_is_accepted_once",
    StaleWithoutFloor: "test_a_greater_token_takes_the_claim",
    ClaimForgetsRecords: "test_records_survive_a_new_claim",
    DeleteLies: "test_deleting_an_unknown_record_says_so",
    DeleteTakesAll: "test_a_reset_forgets_one_record_only",
    RevisionsCut: "test_long_revisions_are_kept_apart",
    CaseIgnored: "test_records_of_steps_and_revisions_are_apart",
    NotesLost: "test_a_record_is_read_back_whole",
    MissesChanges: "test_a_change_between_looking_and_sleeping_is_not_missed",
    NeverRests: "test_a_drained_channel_lets_its_waiters_sleep",
    DrainBlocks: "test_draining_never_blocks",
    OneStoreManyIds: "test_the_store_says_what_it_is",
    CloseOnce: "test_closing_twice_is_harmless",
    DeclaresOtherProcesses: "test_another_process_is_excluded_exactly_where_that_is_declared",
    DeclaresFloor: "test_tokens_outlive_the_process_that_was_granted_them_where_declared",
    DeclaresDurable: "test_records_outlive_the_process_that_wrote_them_where_declared",
    HidesExpiry: "test_a_silent_holder_keeps_its_lease_exactly_where_no_expiry_is_declared",
    HidesWake: "test_a_release_wakes_a_queued_waiter_where_declared",
}


class Store(StoreContract):
    """The contract of the port on a store of `kind`."""

    patience = 0.5
    quick = 2.0
    kind: type[MemoryBackend] = Sound

    @pytest.fixture
    def open_backend(self) -> Iterator[OpenBackend]:
        """Clients of one fresh store."""
        self.clock = FakeClock()
        with opener(self.kind, f"memory://broken-{next(_NUMBERS)}", clock=self.clock) as open_backend:
            yield open_backend

    def let_expire(self, backend: Backend, name: str) -> None:
        """Advance the clock instead of waiting."""
        del backend, name
        self.clock.advance(self.short_ttl)

    def let_time_pass(self, seconds: float) -> None:
        """Advance the clock instead of waiting."""
        self.clock.advance(seconds)


class Cut(MemoryBackend):
    """A store that does not answer, as a good backend tells it."""

    def failure(self) -> Exception:
        """Return what is raised."""
        return BackendUnavailable("cannot reach 127.0.0.1:1")

    def __getattribute__(self, name: str) -> object:
        if name in {"holder", "leases", "break_lease", "claim", "put_marker", "markers", "delete_marker", "scopes"} | {
            "acquire", "release", "ping", "watch",
        }:  # fmt: skip

            def refuse(*_: object, **__: object) -> object:
                raise self.failure()

            return refuse
        return super().__getattribute__(name)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Know nothing."""
        from coordinate.types import Unknown

        return [Unknown("no answer") for _ in grants]


class DriverErrorLeaks(Cut):
    """An error of the driver arrives as it is."""

    def failure(self) -> Exception:
        """Return the system's."""
        return ConnectionResetError("reset by peer")


class PasswordShown(Cut):
    """The URL is in the message, whole."""

    def failure(self) -> Exception:
        """Return too much."""
        return BackendUnavailable("cannot reach store://:canary@127.0.0.1:1")


class OutageShownAsHeld(Cut):
    """Silence is taken for somebody else's lease."""

    def __getattribute__(self, name: str) -> object:
        if name == "acquire":
            return lambda *_, **__: Held(None, 1.0)
        return super().__getattribute__(name)


class OutageShownAsGone(Cut):
    """Silence is taken for a loss."""

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Give up at once."""
        return [Gone() for _ in grants]


class OutageShownAsNothing(Cut):
    """Silence is taken for an empty store."""

    def __getattribute__(self, name: str) -> object:
        if name == "markers":
            return lambda _: MarkerView(None)
        return super().__getattribute__(name)


OUTAGE_CAUGHT_BY: dict[type[Cut], str] = {
    DriverErrorLeaks: "test_what_cannot_be_known_is_an_error[ping]",
    PasswordShown: "test_what_cannot_be_known_is_an_error[ping]",
    OutageShownAsHeld: "test_what_cannot_be_known_is_an_error[acquire]",
    OutageShownAsGone: "test_renewals_without_an_answer_are_unknown",
    OutageShownAsNothing: "test_what_cannot_be_known_is_an_error[markers]",
}


class Unreachable(UnavailablePortContract):
    """The contract of outages on a store of `kind`."""

    kind: type[Cut] = Cut

    @pytest.fixture
    def unreachable(self) -> Iterator[Backend]:
        """One client."""
        with opener(self.kind, f"memory://cut-{next(_NUMBERS)}") as open_backend:
            yield open_backend()


class TestSound(Store):
    """The control: everything holds."""


class TestCut(Unreachable):
    """The control of outages."""


for _test, _kinds in ((Store, CAUGHT_BY), (Unreachable, OUTAGE_CAUGHT_BY)):
    for _kind in _kinds:
        _name = f"Test{_kind.__name__}"
        globals()[_name] = type(_name, (_test,), {"kind": _kind, "__module__": __name__})
