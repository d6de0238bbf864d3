"""Hash slots of a Cluster: which slot a key is in, and which server has which slots."""

from __future__ import annotations

import binascii
import functools
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coordinate.backends.redis.wires import Reply

SLOTS = 16384
_TAG_START = b"i"


def slot_of(key: bytes) -> int:
    """Return the slot of a key: of its hash tag, where it has one that is not empty."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    # CRC-16/XMODEM, as servers compute it.
    return binascii.crc_hqx(key, 0) % SLOTS


@functools.lru_cache(maxsize=1024)
def tag_in(slot: int) -> str:
    """Return a hash tag in a slot, always the same; all processes have to agree on it."""
    started = binascii.crc_hqx(_TAG_START, 0)
    numbers = (number for number in range(1 << 20) if binascii.crc_hqx(b"%d" % number, started) % SLOTS == slot)
    return f"{_TAG_START.decode()}{next(numbers)}"


class Range(NamedTuple):
    """Slots next to each other that one primary has.

    Args:
        first: of them.
        last: of them, included.
        host: where that primary is; empty for the host that was asked.
        port: of that primary.
        identity: the name that the Cluster gave it, which it keeps when it restarts.
    """

    first: int
    last: int
    host: str
    port: int
    identity: str


def parse(reply: Reply) -> list[Range]:
    """Return what ``CLUSTER SLOTS`` says, in the order of slots.

    Raises:
        ValueError: this is not what a Cluster answers.
    """
    try:
        return sorted(_range(row) for row in cast("list[list[Reply]]", reply))
    except (TypeError, IndexError, AttributeError, ValueError) as error:
        message = f"CLUSTER SLOTS was answered with {reply!r:.200}"
        raise ValueError(message) from error


def _range(row: list[Reply]) -> Range:
    host, port, identity, *_ = cast("list[Reply]", row[2])
    name = cast("bytes | None", host) or b""
    # Nodes that are told to announce a host name and have none say "?".
    shown = "" if name == b"?" else name.decode()
    return Range(cast(int, row[0]), cast(int, row[1]), shown, cast(int, port), cast(bytes, identity).decode())


class SlotMap:
    """Which primary has which slots, at one instant."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._ranges = sorted(ranges)
        self._firsts = [each.first for each in self._ranges]

    def find(self, slot: int) -> Range | None:
        """Return the range that a slot is in; None while nobody serves it."""
        at = bisect_right(self._firsts, slot) - 1
        return self._ranges[at] if at >= 0 and slot <= self._ranges[at].last else None

    def edges(self, identity: str) -> tuple[int, ...]:
        """Return the lowest and the highest slot of a primary, once if they are the same."""
        mine = [each for each in self._ranges if each.identity == identity]
        return tuple(sorted({mine[0].first, mine[-1].last})) if mine else ()

    def owners(self) -> list[tuple[int, int, str]]:
        """Return who has which slots, independent of how servers split the answer."""
        joined: list[tuple[int, int, str]] = []
        for first, last, _, _, identity in self._ranges:
            if joined and joined[-1][1:] == (first - 1, identity):
                joined[-1] = (joined[-1][0], last, identity)
            else:
                joined.append((first, last, identity))
        return joined
