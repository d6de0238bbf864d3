"""Contract of a store that does not answer: our errors and no others, and never a wrong fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing.contract import Contract
from coordinate.testing.kit import record
from coordinate.types import Claim, Grant, Topic, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.backend import Backend

_OPERATIONS: dict[str, Callable[[Backend], object]] = {
    "acquire": lambda backend: backend.acquire("job", mint(), 30),
    "release": lambda backend: backend.release(Grant("job", 7, mint().nonce, 30)),
    "holder": lambda backend: backend.holder("job"),
    "leases": lambda backend: backend.leases(),
    "break_lease": lambda backend: backend.break_lease("job"),
    "claim": lambda backend: backend.claim("site", Claim(7, mint())),
    "put_marker": lambda backend: backend.put_marker("site", record(token=7), 7),
    "markers": lambda backend: backend.markers("site"),
    "delete_marker": lambda backend: backend.delete_marker("site", "migrate", "r1"),
    "scopes": lambda backend: backend.scopes(),
    "ping": lambda backend: backend.ping(),
}


class UnavailablePortContract(Contract, sealed=True):
    """Subclass with a fixture ``unreachable``: a backend whose store does not answer, with password ``canary``.

    For stores that may be out of reach; a port of this host that nobody listens on is enough.
    """

    @pytest.mark.parametrize("operation", _OPERATIONS)
    def test_what_cannot_be_known_is_an_error(self, unreachable: Backend, operation: str) -> None:
        """Neither "somebody else holds it" nor "there is nothing", nor an error of a driver; and no password."""
        with pytest.raises(BackendUnavailable) as failed:
            _OPERATIONS[operation](unreachable)
        assert str(failed.value), "say what was tried, on which server, what to do next"
        assert "canary" not in str(failed.value)

    def test_renewals_without_an_answer_are_unknown(self, unreachable: Backend) -> None:
        """Renewal never raises: each grant may or may not be ours."""
        grants = [Grant(name, 7, mint().nonce, 30) for name in ("one", "two")]
        answers = unreachable.renew(grants)
        assert [type(answer) for answer in answers] == [Unknown, Unknown]

    def test_a_channel_is_refused_with_our_error_or_polls(self, unreachable: Backend) -> None:
        """A waiter must not sleep on a channel that will never say anything."""
        try:
            watch = unreachable.watch()
        except BackendUnavailable:
            return
        try:
            watch.add(Topic("markers", "site"))
            watch.drain()
            assert watch.poll_interval <= 1.0
        except BackendUnavailable:
            return
        finally:
            watch.close()

    def test_nothing_shows_the_password(self, unreachable: Backend) -> None:
        """Neither the identity of the store nor the object's own description."""
        assert "canary" not in f"{unreachable!r} {unreachable.store_id} {unreachable!s}"

    def test_closing_an_unreachable_store_is_harmless(self, unreachable: Backend) -> None:
        """Twice, too."""
        unreachable.close()
        unreachable.close()
