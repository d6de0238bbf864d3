"""Stores that break a promise about leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from coordinate.types import Gone, Grant, Granted, Held, Renewed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import AcquireAnswer, LeaseRecord, Owner, RenewAnswer


from tests.conformance.broken.sound import Sound


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
}
