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
    at: int = 0
    """The version of the node that tells it: whoever writes the node without knowing of this takes it back."""


def claim_in(data: bytes) -> Claim | None:
    """Return the claim that a scope's node holds; None without one.

    Raises:
        CorruptRecord: it cannot be understood.
    """
    return _wire.decode(Claim, data) if data else None


def told_in(data: bytes, version: int) -> MarkerRecord | None:
    """Return the record that a scope's node tells of; None where there is none, or none that can be understood."""
    if not data:
        return None
    try:
        head = _wire.decode(Head, data)
    except CorruptRecord:
        return None
    return head.told if head.at == version else None


def written(claim: Claim, record: MarkerRecord, version: int) -> bytes:
    """Return what a scope's node holds after a record was written under its claim, when it was at that version."""
    if record.state is not MarkerState.DONE or len(_wire.encode(record)) > TOLD_LIMIT:
        return _wire.encode(claim)
    return _wire.encode(Head(**msgspec.structs.asdict(claim), told=record, at=version + 1))
