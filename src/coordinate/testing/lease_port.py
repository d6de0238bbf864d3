"""Contract of the port's lease operations: grant, renew, release, break, tokens, idempotence."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing.contract import ClientContract
from coordinate.testing.kit import eventually
from coordinate.types import Capability, Gone, Grant, Granted, Held, LossReason, Renewed

if TYPE_CHECKING:
    from coordinate.backend import Backend
    from coordinate.testing.kit import OpenBackend
    from coordinate.types import Owner


def granted(backend: Backend, name: str, owner: Owner | None = None, *, ttl: float = 30.0, floor: int = 0) -> Grant:
    """Acquire and insist on it."""
    answer = backend.acquire(name, owner or mint(), ttl, floor=floor)
    assert isinstance(answer, Granted), answer
    return answer.grant


def _is_free(backend: Backend, name: str) -> bool:
    """Return whether nobody holds a name; a store that gives no usable answer is asked again."""
    try:
        return backend.holder(name) is None
    except BackendUnavailable:
        return False


class LeasePortContract(ClientContract, sealed=True):
    """Subclass with a fixture ``open_backend``; see `coordinate.testing`."""

    short_ttl = 0.4
    """A ttl in seconds that the store can measure and a test can wait for."""

    def let_expire(self, backend: Backend, name: str) -> None:
        """Wait until a lease of `short_ttl` has expired; a store on a fake clock advances it instead."""
        eventually(lambda: _is_free(backend, name), what="expiry")

    def test_a_free_name_is_granted_with_a_positive_token(self, backend: Backend) -> None:
        """The first owner gets it, with the ttl that was asked for."""
        owner = mint()
        grant = granted(backend, "free", owner, ttl=12.5)
        assert grant.token > 0
        assert grant.nonce == owner.nonce
        assert grant.ttl == pytest.approx(12.5)

    def test_a_held_name_answers_held_with_the_holder(self, backend: Backend, other: Backend) -> None:
        """The second owner is told who holds it and when to look again."""
        owner = mint("the-first")
        grant = granted(backend, "held", owner)
        answer = other.acquire("held", mint(), 30)
        assert isinstance(answer, Held)
        assert answer.record is not None
        assert answer.record.owner == owner
        assert answer.record.token == grant.token
        assert 0 < answer.retry_after <= 30

    def test_two_owners_of_one_client_exclude_each_other(self, backend: Backend) -> None:
        """The nonce decides, not the connection or the process."""
        granted(backend, "same-client")
        assert isinstance(backend.acquire("same-client", mint(), 30), Held)

    def test_acquire_is_idempotent_for_the_present_owner(self, backend: Backend, other: Backend) -> None:
        """A repeated request, as after a lost reply, gets the same grant."""
        owner = mint()
        first = granted(backend, "again", owner)
        assert granted(backend, "again", owner) == first
        assert isinstance(other.acquire("again", mint(), 30), Held)

    def test_tokens_grow_with_every_grant(self, backend: Backend, other: Backend) -> None:
        """Whoever is granted later has the greater token."""
        tokens = []
        for client in (backend, other, other, backend):
            grant = granted(client, "growing")
            tokens.append(grant.token)
            assert client.release(grant)
        assert tokens == sorted(set(tokens))

    def test_tokens_start_above_the_floor(self, backend: Backend) -> None:
        """A floor from a marker store is never undercut."""
        first = granted(backend, "floored")
        assert backend.release(first)
        floor = first.token + 1000
        assert granted(backend, "floored", floor=floor).token > floor

    def test_a_floor_does_not_change_a_grant_that_is_repeated(self, backend: Backend) -> None:
        """Idempotence comes before the floor."""
        owner = mint()
        first = granted(backend, "floor-again", owner)
        assert granted(backend, "floor-again", owner, floor=first.token + 5).token == first.token

    def test_names_are_independent(self, backend: Backend, other: Backend) -> None:
        """Holding one name says nothing about another, be it a prefix of it."""
        granted(backend, "a")
        assert granted(other, "a/b").name == "a/b"
        assert granted(other, "b").name == "b"

    def test_release_frees_the_name(self, backend: Backend, other: Backend) -> None:
        """After a release somebody else is granted at once."""
        grant = granted(backend, "released")
        assert backend.release(grant) is True
        assert other.holder("released") is None
        granted(other, "released")

    def test_release_is_idempotent(self, backend: Backend) -> None:
        """The second release says that there was nothing to end."""
        grant = granted(backend, "twice")
        assert backend.release(grant) is True
        assert backend.release(grant) is False

    def test_an_old_grant_cannot_release_a_new_lease(self, backend: Backend, other: Backend) -> None:
        """A late release of an earlier owner changes nothing."""
        old = granted(backend, "late")
        assert backend.release(old)
        new = granted(other, "late")
        assert backend.release(old) is False
        assert isinstance(other.renew([new])[0], Renewed)

    def test_a_stranger_releases_nothing(self, backend: Backend, other: Backend) -> None:
        """Knowing name and token is not owning."""
        grant = granted(backend, "guarded")
        assert other.release(msgspec.structs.replace(grant, nonce=mint().nonce)) is False
        assert backend.renew([grant]) == [Renewed(grant.ttl)]

    def test_a_grant_whose_answer_was_lost_is_released_by_its_nonce(self, backend: Backend, other: Backend) -> None:
        """The owner does not know the token; the core gives it back all the same."""
        owner = mint()
        grant = granted(backend, "unheard", owner)
        assert backend.release(msgspec.structs.replace(grant, token=0)) is True
        granted(other, "unheard")

    def test_a_stranger_renews_nothing(self, backend: Backend, other: Backend) -> None:
        """Neither with another nonce nor after the name has gone on to somebody else."""
        grant = granted(backend, "not-yours")
        (answer,) = other.renew([msgspec.structs.replace(grant, nonce=mint().nonce)])
        assert isinstance(answer, Gone)
        assert other.holder("not-yours") is not None

    def test_a_low_floor_does_not_lower_tokens(self, backend: Backend) -> None:
        """What the store remembers and what it is told both count."""
        first = granted(backend, "remembered", floor=50)
        assert backend.release(first)
        assert granted(backend, "remembered", floor=1).token > first.token > 50

    def test_each_break_raises_the_token(self, backend: Backend, other: Backend) -> None:
        """Two operators at once are two breaks."""
        assert backend.break_lease("twice-broken") < other.break_lease("twice-broken")

    def test_renew_answers_for_each_grant_in_order(self, backend: Backend, other: Backend) -> None:
        """One lost lease does not hide among many good ones."""
        kept = [granted(backend, f"many/{number}") for number in range(5)]
        backend.release(kept[2])
        granted(other, "many/2")
        answers = backend.renew(kept)
        assert [isinstance(answer, Renewed) for answer in answers] == [True, True, False, True, True]
        assert answers[2] == Gone(LossReason.TAKEN)

    def test_a_repeated_acquire_gets_the_ttl_of_the_first(self, backend: Backend) -> None:
        """As after a lost reply: the same grant, whatever the repetition asks for."""
        owner = mint()
        grant = granted(backend, "repeated", owner, ttl=30)
        assert granted(backend, "repeated", owner, ttl=10) == grant

    def test_renewing_nothing_is_allowed(self, backend: Backend) -> None:
        """An empty batch has an empty answer."""
        assert backend.renew([]) == []

    def test_renewing_a_released_lease_is_gone(self, backend: Backend) -> None:
        """Renewal never creates a lease."""
        grant = granted(backend, "gone")
        backend.release(grant)
        (answer,) = backend.renew([grant])
        assert isinstance(answer, Gone)
        assert backend.holder("gone") is None

    def test_breaking_ends_the_lease_and_raises_the_token(self, backend: Backend, other: Backend) -> None:
        """The broken holder learns the reason; the next grant is above the raised token."""
        grant = granted(backend, "broken")
        raised = other.break_lease("broken")
        assert raised > grant.token
        assert backend.renew([grant]) == [Gone(LossReason.BROKEN)]
        backend.release(grant)
        assert granted(other, "broken").token > raised

    def test_breaking_a_free_name_raises_the_token(self, backend: Backend) -> None:
        """There is nothing to end, but the next token is higher."""
        raised = backend.break_lease("never-held")
        assert granted(backend, "never-held").token > raised

    def test_holder_and_leases_show_what_is_held(self, backend: Backend, other: Backend) -> None:
        """Reading needs no lease and sees every holder below a prefix, sorted."""
        owner = mint("shown")
        granted(backend, "list/b", owner)
        granted(backend, "list/a")
        granted(backend, "elsewhere")
        found = other.leases("list/")
        assert [record.name for record in found] == ["list/a", "list/b"]
        record = other.holder("list/b")
        assert record is not None
        assert record.owner == owner
        assert 0 < record.remaining <= 30
        assert other.holder("list/none") is None

    def test_a_holder_that_does_not_renew_loses_the_lease_where_expiry_is_declared(
        self, backend: Backend, other: Backend
    ) -> None:
        """With expiry the next owner gets it after the ttl; without, a live holder keeps it."""
        grant = granted(backend, "silent", ttl=self.short_ttl)
        if Capability.EXPIRY not in backend.capabilities:
            assert isinstance(other.acquire("silent", mint(), 30), Held)
            assert isinstance(backend.renew([grant])[0], Renewed)
            return
        self.let_expire(other, "silent")
        later = granted(other, "silent")
        assert later.token > grant.token
        assert backend.renew([grant]) == [Gone(LossReason.TAKEN)]
        assert backend.release(grant) is False

    def test_an_expired_lease_is_not_revived_by_renewal(self, backend: Backend) -> None:
        """Also when nobody took it: the holder has stopped believing in it."""
        grant = granted(backend, "expired", ttl=self.short_ttl)
        if Capability.EXPIRY in backend.capabilities:
            self.let_expire(backend, "expired")
            assert backend.renew([grant]) == [Gone(LossReason.EXPIRED)]
        else:
            assert isinstance(backend.renew([grant])[0], Renewed)

    def test_tokens_outlive_the_clients_where_declared(self, open_backend: OpenBackend) -> None:
        """A new client continues above the tokens of one that is closed."""
        first = open_backend()
        grant = granted(first, "reopened")
        first.release(grant)
        first.close()
        assert granted(open_backend(), "reopened").token > grant.token

    def test_an_expired_lease_is_not_shown(self, backend: Backend, other: Backend) -> None:
        """Where leases expire; elsewhere its holder is shown for as long as it lives."""
        grant = granted(backend, "past", ttl=self.short_ttl)
        if Capability.EXPIRY in backend.capabilities:
            self.let_expire(other, "past")
            assert [record.name for record in other.leases()] == []
        else:
            assert [record.token for record in other.leases()] == [grant.token]

    def test_racing_clients_have_one_winner(self, open_backend: OpenBackend) -> None:
        """Of eight simultaneous requests exactly one is granted."""
        clients = [open_backend() for _ in range(8)]
        barrier = threading.Barrier(len(clients))
        answers = []

        def race(client: Backend) -> None:
            barrier.wait()
            answers.append(client.acquire("race", mint(), 30))

        threads = [threading.Thread(target=race, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(answer).__name__ for answer in answers) == ["Granted"] + ["Held"] * 7

    def test_the_store_says_what_it_is(self, backend: Backend, other: Backend) -> None:
        """A ping answers, the description names the kind, clients of one store share its id."""
        backend.ping()
        assert backend.describe()["kind"]
        assert backend.store_id == other.store_id

    def test_closing_twice_is_harmless(self, open_backend: OpenBackend) -> None:
        """Close is idempotent."""
        client = open_backend()
        client.close()
        client.close()
