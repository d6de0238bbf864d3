"""Renewals that are prepared once and sent again and again, for as long as they are about the same leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.types import Renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from coordinate.backends.redis.beliefs import Belief, Proof
    from coordinate.backends.redis.node import Bundle
    from coordinate.types import Grant

_KEPT = 4
"""Leases of different lengths are renewed in turn; a process with more of these prepares more often."""


class Round:
    """The requests that renew some leases, and what is believed of these.

    Args:
        grants: of the leases.
        bundles: the requests.
        beliefs: of the leases, in the order of their grants; None where nothing is known.
    """

    def __init__(self, grants: Sequence[Grant], bundles: Sequence[Bundle], beliefs: Sequence[Belief | None]) -> None:
        self.grants = grants
        self.bundles = bundles
        self._beliefs = beliefs
        answers = {grant.ttl: Renewed(grant.ttl) for grant in grants}
        self.renewed = [answers[grant.ttl] for grant in grants]
        """What it means for all of them if no exception is told."""
        self._proofs: list[Proof | None] = [None] * len(bundles)
        """Of each request, once all of its leases share it."""

    def prove(self, number: int, proof: Proof, exceptions: Container[int]) -> None:
        """Note that one request has renewed its leases, but for exceptions."""
        shared = self._proofs[number]
        if shared is not None and not exceptions:
            shared.incarnation, shared.sent = proof.incarnation, proof.sent
            return
        for index in self.bundles[number].indexes:
            belief = self._beliefs[index]
            if belief is not None and index not in exceptions:
                belief.proof = proof
        # An exception keeps the old one, which nobody moves on any more.
        self._proofs[number] = None if exceptions else proof


class Rounds:
    """The last few rounds.

    Args:
        prepare: makes one.
    """

    def __init__(self, prepare: Callable[[Sequence[Grant]], Round]) -> None:
        self._prepare = prepare
        self._kept: list[Round] = []

    def find(self, grants: Sequence[Grant]) -> Round:
        """Return the round for these very grants: the same object as before, which cannot have changed."""
        if not isinstance(grants, tuple):
            return self._prepare(grants)
        for kept in self._kept:
            if kept.grants is grants:
                return kept
        made = self._prepare(grants)
        self._kept = [made, *self._kept[: _KEPT - 1]]
        return made
