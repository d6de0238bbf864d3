"""What this process's holders still believe in: the leases that may be re-asserted after a server lost them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Belief(NamedTuple):
    """One granted lease.

    Args:
        owner: who holds it, encoded.
        incarnation: of the server that confirmed it last.
        until: instant, on the local clock, until which the holder believes in it.
    """

    owner: bytes
    incarnation: bytes
    until: float


class Beliefs:
    """The leases of one process, by nonce. Those that nobody renews are forgotten after their time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._by_nonce: dict[str, Belief] = {}
        self._sweep_at = 64

    def note(self, nonce: str, belief: Belief) -> None:
        """Note a grant or a renewal."""
        self._by_nonce[nonce] = belief
        if len(self._by_nonce) >= self._sweep_at:
            now = self._now()
            # A copy first: other threads note and forget meanwhile.
            living = {key: belief for key, belief in list(self._by_nonce.items()) if belief.until > now}
            self._by_nonce = living | {nonce: belief}
            self._sweep_at = 2 * len(self._by_nonce) + 64

    def renewed(self, nonce: str, incarnation: bytes, until: float) -> None:
        """Note that a server confirmed a lease again."""
        belief = self._by_nonce.get(nonce)
        if belief is not None:
            self._by_nonce[nonce] = Belief(belief.owner, incarnation, until)

    def find(self, nonce: str) -> Belief | None:
        """Return what is believed at this instant; None where the holder's time is over."""
        belief = self._by_nonce.get(nonce)
        return belief if belief is not None and belief.until > self._now() else None

    def forget(self, nonce: str) -> None:
        """Forget a lease that has ended."""
        self._by_nonce.pop(nonce, None)
