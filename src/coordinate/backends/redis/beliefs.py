"""What this process's holders still believe in: the leases that are renewed, and may be restored after a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.types import Grant, Owner


class Proof:
    """The last confirmation of one lease, or of all that one request has renewed.

    Args:
        incarnation: of the server that confirmed it.
        sent: when, on the local clock, the request was sent.
    """

    __slots__ = ("incarnation", "sent")

    def __init__(self, incarnation: bytes, sent: float) -> None:
        self.incarnation = incarnation
        self.sent = sent


class Belief:
    """One granted lease.

    Args:
        token: of the grant; one owner may have had another one before.
        owner: who holds it.
        ttl: of the grant.
        proof: that it was ours.
    """

    __slots__ = ("owner", "proof", "token", "ttl")

    def __init__(self, token: int, owner: Owner, ttl: float, proof: Proof) -> None:
        self.token = token
        self.owner = owner
        self.ttl = ttl
        self.proof = proof

    @property
    def until(self) -> float:
        """Return the instant, on the local clock, until which the holder believes in it."""
        return self.proof.sent + self.ttl


class Beliefs:
    """The leases of one process, by nonce. Those that nobody renews are forgotten after their time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._by_nonce: dict[str, Belief] = {}
        self._sweep_at = 64

    def note(self, nonce: str, belief: Belief) -> None:
        """Note a grant."""
        self._by_nonce[nonce] = belief
        if len(self._by_nonce) >= self._sweep_at:
            now = self._now()
            # A copy first: other threads note and forget meanwhile.
            for key, each in list(self._by_nonce.items()):
                if each.until <= now:
                    self._by_nonce.pop(key, None)
            self._sweep_at = 2 * len(self._by_nonce) + 64

    def find(self, grant: Grant) -> Belief | None:
        """Return what is noted of exactly this grant, also when its time is over."""
        belief = self._by_nonce.get(grant.nonce)
        return belief if belief is not None and belief.token == grant.token else None

    def forget(self, nonce: str) -> None:
        """Forget a lease that has ended."""
        self._by_nonce.pop(nonce, None)
