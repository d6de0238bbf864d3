"""Stores that say of themselves what is not so, and one that cannot be closed twice."""

from __future__ import annotations

from coordinate.types import Capability
from tests.conformance.broken.sound import Sound


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
    OneStoreManyIds: "test_the_store_says_what_it_is",
    CloseOnce: "test_closing_twice_is_harmless",
    DeclaresOtherProcesses: "test_another_process_is_excluded_exactly_where_that_is_declared",
    DeclaresFloor: "test_tokens_outlive_the_process_that_was_granted_them_where_declared",
    DeclaresDurable: "test_records_outlive_the_process_that_wrote_them_where_declared",
    HidesExpiry: "test_a_silent_holder_keeps_its_lease_exactly_where_no_expiry_is_declared",
    HidesWake: "test_a_release_wakes_a_queued_waiter_where_declared",
}
