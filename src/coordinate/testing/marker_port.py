"""Contract of the port's marker operations: claim, fenced writes, done once, reset."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from coordinate._identity import mint
from coordinate.errors import AlreadyDone, StaleToken
from coordinate.testing.contract import ClientContract
from coordinate.testing.kit import record
from coordinate.types import Claim, MarkerState

if TYPE_CHECKING:
    from coordinate.backend import Backend
    from coordinate.testing.kit import OpenBackend


class MarkerPortContract(ClientContract, sealed=True):
    """Subclass with a fixture ``open_backend``; see `coordinate.testing`."""

    def test_an_unknown_scope_is_empty(self, backend: Backend) -> None:
        """Nothing claimed, nothing recorded, nothing listed."""
        view = backend.markers("nothing")
        assert view.claim is None
        assert view.records == ()
        assert "nothing" not in backend.scopes()

    def test_a_claim_is_read_back_whole(self, backend: Backend, other: Backend) -> None:
        """Token, owner, lease store and ttl come back as they were written."""
        claim = Claim(7, mint("leader"), "redis:somewhere", 30.0)
        backend.claim("site", claim)
        assert other.markers("site").claim == claim
        assert "site" in other.scopes()

    def test_a_greater_token_takes_the_claim(self, backend: Backend, other: Backend) -> None:
        """The newer leader wins, the older one is refused from then on."""
        backend.claim("site", Claim(7, mint()))
        other.claim("site", Claim(9, mint()))
        with pytest.raises(StaleToken) as refused:
            backend.claim("site", Claim(8, mint()))
        assert refused.value.floor == 9

    def test_the_same_token_of_another_owner_is_refused(self, backend: Backend, other: Backend) -> None:
        """Of two owners of one token only the first may lead."""
        backend.claim("site", Claim(7, mint()))
        with pytest.raises(StaleToken):
            other.claim("site", Claim(7, mint()))

    def test_repeating_a_claim_is_accepted(self, backend: Backend) -> None:
        """As after a lost reply."""
        claim = Claim(7, mint())
        backend.claim("site", claim)
        backend.claim("site", claim)
        backend.put_marker("site", record(token=7), 7)

    def test_a_record_is_read_back_whole(self, backend: Backend, other: Backend) -> None:
        """Every field survives, text outside ASCII included."""
        backend.claim("site", Claim(7, mint()))
        written = record(
            token=7,
            state=MarkerState.FAILED,
            revision="registry.example/team/app:v1@sha256:0a~%",
            owner="pod-1[42]",
            failures=2,
            crashes=1,
            exit_code=3,
            detail="Zeile eins\n\tletzte Zeile \u2713",
            fingerprint="abc",
            notes={"sessions": "1,2"},
        )
        backend.put_marker("site", written, 7)
        assert other.markers("site").find(written.step, written.revision) == written

    def test_records_of_steps_and_revisions_are_apart(self, backend: Backend) -> None:
        """Names that differ only in case or separators are different records."""
        backend.claim("site", Claim(7, mint()))
        names = [
            ("a", "r1"),
            ("A", "r1"),
            ("a", "R1"),
            ("a/b", "r1"),
            ("a", "b/r1"),
            ("a.b", "r1"),
            ("a", "b.r1"),
        ]
        for step, revision in names:
            backend.put_marker("site", record(step, token=7, revision=revision), 7)
        assert sorted((found.step, found.revision) for found in backend.markers("site").records) == sorted(names)

    def test_long_revisions_are_kept_apart(self, backend: Backend) -> None:
        """Two long image references with a common beginning are two records."""
        backend.claim("site", Claim(7, mint()))
        revisions = ["registry.example/" + "x" * 400 + end for end in ("1", "2")]
        for revision in revisions:
            backend.put_marker("site", record(token=7, revision=revision), 7)
        assert sorted(found.revision for found in backend.markers("site").records) == revisions

    def test_scopes_are_apart(self, backend: Backend) -> None:
        """A claim and a record of one scope are not seen in another."""
        backend.claim("one", Claim(7, mint()))
        backend.put_marker("one", record(token=7), 7)
        backend.claim("two", Claim(3, mint()))
        assert backend.markers("two").records == ()
        assert backend.scopes() == ["one", "two"]

    def test_writing_without_a_claim_is_refused(self, backend: Backend) -> None:
        """Register first, then write."""
        with pytest.raises(StaleToken):
            backend.put_marker("site", record(token=7), 7)
        assert backend.markers("site").records == ()

    def test_a_deposed_leader_writes_nothing(self, backend: Backend, other: Backend) -> None:
        """After a newer claim the older token is refused, and the refusal names the newer one."""
        backend.claim("site", Claim(7, mint()))
        other.claim("site", Claim(9, mint()))
        with pytest.raises(StaleToken) as refused:
            backend.put_marker("site", record(token=7), 7)
        assert refused.value.floor == 9
        assert other.markers("site").records == ()

    def test_a_token_that_was_never_claimed_is_refused(self, backend: Backend) -> None:
        """Also when it is greater: only equality counts."""
        backend.claim("site", Claim(7, mint()))
        with pytest.raises(StaleToken):
            backend.put_marker("site", record(token=8), 8)

    def test_records_survive_a_new_claim(self, backend: Backend, other: Backend) -> None:
        """What an earlier leader achieved and counted is not lost with it."""
        backend.claim("site", Claim(7, mint()))
        done = record("create", token=7)
        begun = record("migrate", MarkerState.IN_PROGRESS, token=7, attempts=2, failures=1)
        backend.put_marker("site", done, 7)
        backend.put_marker("site", begun, 7)
        for token in (9, 12):
            other.claim("site", Claim(token, mint()))
        view = other.markers("site")
        assert view.find("create", "r1") == done
        assert view.find("migrate", "r1") == begun

    def test_a_record_is_replaced_by_a_later_one(self, backend: Backend) -> None:
        """In progress, failed, in progress, done: the last one counts."""
        backend.claim("site", Claim(7, mint()))
        states = (MarkerState.IN_PROGRESS, MarkerState.FAILED, MarkerState.IN_PROGRESS, MarkerState.DONE)
        for attempts, state in zip((1, 1, 2, 2), states, strict=True):
            backend.put_marker("site", record(state=state, token=7, attempts=attempts), 7)
            (found,) = backend.markers("site").records
            assert found.state is state

    @pytest.mark.parametrize("state", [MarkerState.FAILED, MarkerState.INTERRUPTED, MarkerState.IN_PROGRESS])
    def test_a_late_progress_record_does_not_overwrite_a_later_state(
        self, backend: Backend, other: Backend, state: MarkerState
    ) -> None:
        """Delayed on its way, it arrives after its attempt's end, or after the next one has begun; nobody is told."""
        backend.claim("site", Claim(7, mint()))
        latest = record(state=state, token=7, attempts=2, failures=1, started=20.0, detail="why")
        backend.put_marker("site", latest, 7)
        late = [record(state=MarkerState.IN_PROGRESS, token=7, attempts=1, started=10.0, finished=0.0)]
        if state is not MarkerState.IN_PROGRESS:
            late.append(record(state=MarkerState.IN_PROGRESS, token=7, attempts=2, started=20.0, finished=0.0, beats=3))
        for each in late:
            other.put_marker("site", each, 7)
            assert backend.markers("site").records == (latest,)

    def test_progress_that_is_not_late_is_stored(self, backend: Backend) -> None:
        """Of the next attempt, of one that nobody counts, of another fingerprint, of one that an operator forgave."""
        backend.claim("site", Claim(7, mint()))
        failed = record(state=MarkerState.FAILED, token=7, attempts=2, started=20.0)
        begun = record(state=MarkerState.IN_PROGRESS, token=7, attempts=2, started=20.0, finished=0.0)
        forgiven = record(state=MarkerState.INTERRUPTED, token=7, attempts=2, started=20.0, finished=0.0)
        pairs = [
            (failed, msgspec.structs.replace(begun, attempts=3, started=30.0)),
            (failed, msgspec.structs.replace(begun, attempts=1, started=30.0)),
            (failed, msgspec.structs.replace(begun, attempts=1, fingerprint="other")),
            (forgiven, msgspec.structs.replace(begun, beats=1)),
            (begun, msgspec.structs.replace(begun, notes={"half": "done"})),
        ]
        for before, after in pairs:
            backend.delete_marker("site", "migrate", "r1")
            for each in (before, after):
                backend.put_marker("site", each, 7)
            assert backend.markers("site").records == (after,)

    def test_a_new_leader_replaces_records_of_an_earlier_one(self, backend: Backend, other: Backend) -> None:
        """Taken over: the record of the older token is superseded."""
        backend.claim("site", Claim(7, mint()))
        backend.put_marker("site", record(state=MarkerState.IN_PROGRESS, token=7), 7)
        other.claim("site", Claim(9, mint()))
        replaced = record(state=MarkerState.IN_PROGRESS, token=9, attempts=2)
        other.put_marker("site", replaced, 9)
        assert backend.markers("site").records == (replaced,)

    def test_done_is_accepted_once(self, backend: Backend) -> None:
        """Nothing but the very same record is accepted after done."""
        backend.claim("site", Claim(7, mint()))
        done = record(token=7)
        backend.put_marker("site", done, 7)
        backend.put_marker("site", done, 7)
        for refused in (record(token=7, finished=9.0), record(state=MarkerState.IN_PROGRESS, token=7)):
            with pytest.raises(AlreadyDone):
                backend.put_marker("site", refused, 7)
        assert backend.markers("site").records == (done,)

    def test_done_of_an_earlier_leader_stays_done(self, backend: Backend, other: Backend) -> None:
        """A newer token does not make a finished step unfinished."""
        backend.claim("site", Claim(7, mint()))
        done = record(token=7)
        backend.put_marker("site", done, 7)
        other.claim("site", Claim(9, mint()))
        with pytest.raises(AlreadyDone):
            other.put_marker("site", record(state=MarkerState.IN_PROGRESS, token=9), 9)
        assert other.markers("site").records == (done,)

    def test_a_deleted_record_is_gone_and_may_be_written_again(self, backend: Backend, other: Backend) -> None:
        """An operator's reset works while a leader lives, for done records, too."""
        backend.claim("site", Claim(7, mint()))
        backend.put_marker("site", record(token=7), 7)
        assert other.delete_marker("site", "migrate", "r1") is True
        assert backend.markers("site").records == ()
        assert other.delete_marker("site", "migrate", "r1") is False
        again = record(state=MarkerState.IN_PROGRESS, token=7, attempts=2)
        backend.put_marker("site", again, 7)
        assert other.markers("site").records == (again,)

    def test_a_deleted_record_stays_deleted_under_the_next_claim(self, backend: Backend) -> None:
        """Taking over does not bring back what an operator removed."""
        backend.claim("site", Claim(7, mint()))
        backend.put_marker("site", record(token=7), 7)
        backend.delete_marker("site", "migrate", "r1")
        backend.claim("site", Claim(9, mint()))
        assert backend.markers("site").records == ()

    def test_a_reset_forgets_one_record_only(self, backend: Backend, other: Backend) -> None:
        """Neither the claim nor its neighbours."""
        backend.claim("site", Claim(7, mint()))
        kept = record("create", token=7)
        backend.put_marker("site", kept, 7)
        backend.put_marker("site", record(token=7), 7)
        assert other.delete_marker("site", "migrate", "r1")
        view = other.markers("site")
        assert view.records == (kept,)
        assert view.claim is not None
        assert view.claim.token == 7

    def test_the_owner_of_a_claim_may_raise_it(self, backend: Backend) -> None:
        """Granted again with a greater token it claims again; the smaller one is over."""
        owner = mint()
        backend.claim("site", Claim(7, owner))
        backend.claim("site", Claim(8, owner))
        with pytest.raises(StaleToken) as refused:
            backend.claim("site", Claim(7, owner))
        assert refused.value.floor == 8

    def test_deleting_an_unknown_record_says_so(self, backend: Backend) -> None:
        """Nothing happens, also in an unknown scope."""
        assert backend.delete_marker("site", "migrate", "r1") is False

    def test_of_racing_claims_the_greatest_token_stays(self, open_backend: OpenBackend) -> None:
        """Whatever the order, in the end the greatest is registered and all others are told or superseded."""
        clients = [open_backend() for _ in range(6)]
        barrier = threading.Barrier(len(clients))

        def race(client: Backend, token: int) -> None:
            barrier.wait()
            try:
                client.claim("race", Claim(token, mint()))
                client.put_marker("race", record(f"s{token}", token=token), token)
            except StaleToken:
                return

        threads = [threading.Thread(target=race, args=(client, 10 + i)) for i, client in enumerate(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        view = clients[0].markers("race")
        assert view.claim is not None
        assert view.claim.token == 15
        assert view.find("s15", "r1") is not None
