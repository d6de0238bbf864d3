"""Fencing tokens: base + czxid. ZooKeeper numbers all changes of an ensemble; the base lifts that over a floor.

A line is served in the order in which its nodes were created, so czxid alone grows with every grant. The base is
raised when another store, or the same ensemble before it was wiped, has granted greater tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from coordinate import _wire

if TYPE_CHECKING:
    from kazoo.protocol.states import ZnodeStat


class Ground(msgspec.Struct, frozen=True):
    """What the node of a lease holds."""

    base: int = 0
    broken: int = 0
    """Grants with a lower token have been ended by an operator."""
    v: int = 1

    def token(self, created: int) -> int:
        """Return the token of whoever's node was created by that change."""
        return self.base + created

    def above(self, floor: int, created: int) -> Ground:
        """Return a ground on which that node's token is greater than a floor."""
        return msgspec.structs.replace(self, base=max(self.base, floor + 1 - created))

    def after_break(self, highest: int) -> Ground:
        """Return a ground on which nobody created up to the change ``highest`` has a valid grant.

        Whoever's node is created by a later change gets a token above ``broken``.
        """
        return msgspec.structs.replace(self, base=self.base + 1, broken=self.base + highest + 1)


def read(answer: Any) -> tuple[Ground, ZnodeStat]:  # noqa: ANN401 -- kazoo's answer to get
    """Return a lease's ground and the state of its node.

    Raises:
        CorruptRecord: it was written by something else.
    """
    data, stat = answer
    return (_wire.decode(Ground, data) if data else Ground()), stat
