"""What the node of a scope holds: the claim, and the record that says done if that is what was written last.

Whoever watches the node is told that it has changed, not what; he sets his watch again by reading it, and so the record
comes with the request that has to be made anyhow. A fleet of followers makes no other.
"""

from __future__ import annotations

import msgspec

from coordinate import _wire
from coordinate.errors import CorruptRecord
from coordinate.types import Claim, MarkerRecord, MarkerState

TOLD_LIMIT = 16 * 1024
"""Bytes of a record that is told; of a larger one everybody is told only that something has changed."""


class Head(Claim, frozen=True):
    """A claim and what was done under it last."""

    told: MarkerRecord | None = None


def claim_in(data: bytes) -> Claim | None:
    """Return the claim that a scope's node holds; None without one.

    Raises:
        CorruptRecord: it cannot be understood.
    """
    return _wire.decode(Claim, data) if data else None


def told_in(data: bytes) -> MarkerRecord | None:
    """Return the record that a scope's node tells of; None where there is none, or none that can be understood."""
    if not data:
        return None
    try:
        return _wire.decode(Head, data).told
    except CorruptRecord:
        return None


def written(claim: Claim, record: MarkerRecord | None = None) -> bytes:
    """Return what a scope's node holds after that claim, or after that record was written under it."""
    if record is None or record.state is not MarkerState.DONE or len(_wire.encode(record)) > TOLD_LIMIT:
        return _wire.encode(claim)
    return _wire.encode(Head(**msgspec.structs.asdict(claim), told=record))


def untold(data: bytes) -> bytes:
    """Return what a scope's node holds after any other change: the same claim, even one that cannot be understood."""
    return data if told_in(data) is None else written(_wire.decode(Claim, data))
