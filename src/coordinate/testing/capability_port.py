"""Contract of what a store declares: what it declares holds, and what it does not declare is really absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate._identity import mint
from coordinate.testing.contract import ClientContract
from coordinate.testing.lease_port import granted
from coordinate.types import Capability, Granted, Held

if TYPE_CHECKING:
    from coordinate.backend import Backend
    from coordinate.testing.kit import Clients

_TRY = """
from coordinate._identity import mint
reply = backend.acquire("elsewhere", mint(), 30)
answer["reply"] = type(reply).__name__
"""
_GRANT = """
from coordinate._identity import mint
grant = backend.acquire("reborn", mint(), 30).grant
backend.release(grant)
answer["token"] = grant.token
"""
_RECORD = """
from coordinate._identity import mint
from coordinate.testing.kit import record
from coordinate.types import Claim
backend.claim("kept", Claim(7, mint()))
backend.put_marker("kept", record(token=7), 7)
"""


class CapabilityPortContract(ClientContract, sealed=True):
    """Subclass with a fixture ``open_backend`` that yields what `opener` yields: other processes take part."""

    def test_capabilities_are_known_words_and_equal_for_all_clients(self, backend: Backend, other: Backend) -> None:
        """A set of `Capability`, and a property of the store, not of a connection."""
        assert isinstance(backend.capabilities, frozenset)
        assert all(isinstance(each, Capability) for each in backend.capabilities)
        assert backend.capabilities == other.capabilities == backend.capabilities

    def test_other_hosts_include_other_processes(self, backend: Backend) -> None:
        """Who promises the greater promises the smaller."""
        wide = {Capability.CROSS_HOST, Capability.FAILOVER} & backend.capabilities
        assert not wide or Capability.CROSS_PROCESS in backend.capabilities

    def test_another_process_is_excluded_exactly_where_that_is_declared(
        self, open_backend: Clients, backend: Backend
    ) -> None:
        """Declared: it is told who holds the lease. Not declared: it does not even see it."""
        granted(backend, "elsewhere")
        reply = open_backend.elsewhere(_TRY)["reply"]
        declared = Capability.CROSS_PROCESS in backend.capabilities
        assert reply == (Held if declared else Granted).__name__, "declare cross-process exactly if it holds"

    def test_tokens_outlive_the_process_that_was_granted_them_where_declared(
        self, open_backend: Clients, backend: Backend
    ) -> None:
        """Declared: greater than a token of a process that is gone. Neither floor nor cross-process: it repeats."""
        token = open_backend.elsewhere(_GRANT)["token"]
        assert isinstance(token, int)
        later = granted(backend, "reborn").token
        if {Capability.FLOOR, Capability.CROSS_PROCESS} & backend.capabilities:
            assert later > token
        else:
            assert later <= token, "tokens do not repeat here: declare floor"

    def test_records_outlive_the_process_that_wrote_them_where_declared(
        self, open_backend: Clients, backend: Backend
    ) -> None:
        """Declared: read back in another process. Neither durable nor cross-process: they are gone."""
        open_backend.elsewhere(_RECORD)
        found = backend.markers("kept").find("migrate", "r1")
        kept = bool({Capability.DURABLE_MARKERS, Capability.CROSS_PROCESS} & backend.capabilities)
        assert (found is not None) is kept, "declare durable-markers exactly if records last"

    def test_a_silent_holder_keeps_its_lease_exactly_where_no_expiry_is_declared(
        self, backend: Backend, other: Backend
    ) -> None:
        """After its ttl somebody else gets it, or nobody does for as long as it lives."""
        granted(backend, "hung", ttl=self.short_ttl)
        self.let_time_pass(self.short_ttl * 1.5)
        answer = other.acquire("hung", mint(), 30)
        if Capability.EXPIRY in backend.capabilities:
            for _ in range(100):
                # Servers look at what has expired now and then.
                if isinstance(answer, Granted):
                    return
                self.let_time_pass(self.short_ttl / 4)
                answer = other.acquire("hung", mint(), 30)
        assert isinstance(answer, Held), "leases end by themselves here: declare expiry"
        assert Capability.EXPIRY not in backend.capabilities

    short_ttl = 0.4
    """A ttl in seconds that the store can measure and a test can wait for."""
