"""Where things lie, and making the way to them. Nothing else knows a path.

::

    <chroot>/<namespace>/leases/<name>                    `coordinate_zookeeper.tokens.Ground` of the lease
    <chroot>/<namespace>/leases/<name>/<nonce>~<number>   one in line, ephemeral; the lowest number holds the lease
    <chroot>/<namespace>/markers/<scope>                  the claim; each change of the scope writes it, too
    <chroot>/<namespace>/markers/<scope>/<hash>           the record of one step and revision

Names are percent-encoded. Numbers are ZooKeeper's own; they wrap after 2^31 entries into one line.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from kazoo.exceptions import NoNodeError

from coordinate._names import decode, encode
from coordinate_zookeeper import asking

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coordinate_zookeeper.session import Session

_WORD = 2**32
_HALF = 2**31
MARK = "~"
"""Ends the nonce in a node's name; no encoded nonce holds it."""


class Nodes(NamedTuple):
    """The paths of one namespace."""

    root: str

    @property
    def leases(self) -> str:
        """Return the parent of all leases."""
        return f"{self.root}/leases"

    @property
    def markers(self) -> str:
        """Return the parent of all scopes."""
        return f"{self.root}/markers"

    def lease(self, name: str) -> str:
        """Return the node of a lease, whose children are its line."""
        return f"{self.leases}/{encode(name)}"

    def scope(self, scope: str) -> str:
        """Return the node of a scope."""
        return f"{self.markers}/{encode(scope)}"

    def record(self, scope: str, step: str, revision: str) -> str:
        """Return the node of a record."""
        key = hashlib.sha256(f"{step}\0{revision}".encode()).hexdigest()
        return f"{self.scope(scope)}/{key}"


def name_of(node: str) -> str:
    """Return the name that a child of `Nodes.leases` or `Nodes.markers` stands for."""
    return decode(node)


def entry(nonce: str) -> str:
    """Return what the name of an owner's node in a line starts with."""
    return encode(nonce) + MARK


def in_order(children: Iterable[str]) -> list[str]:
    """Return a line, first come first; children that are no entries are left out.

    Example:
        >>> in_order(["b~0000000010", "a~0000000009", "stranger"])
        ['a~0000000009', 'b~0000000010']
    """
    numbers: dict[str, int] = {}
    for child in children:
        nonce, mark, text = child.rpartition(MARK)
        if nonce and mark and text.lstrip("-").isdigit():
            numbers[child] = int(text)
    if not numbers:
        return []
    # Numbers wrap from 2^31 - 1 to -2^31: all that matters is how far each is from any of them.
    middle = next(iter(numbers.values()))
    return sorted(numbers, key=lambda child: (numbers[child] - middle + _HALF) % _WORD)


def make(session: Session, what: str, path: str) -> None:
    """Create a node and all that is missing above it.

    Raises:
        BackendUnavailable: it is not known to be there.
    """
    parts = path.split("/")
    levels = ["/".join(parts[:length]) for length in range(2, len(parts) + 1)]
    found = session.ask(what, [asking.exists(level) for level in levels])
    # Only what is missing: a chroot may lie below nodes where we may not create anything.
    missing = [level for level, stat in zip(levels, found, strict=True) if stat is None]
    answers = session.ask(what, [asking.create(level) for level in missing])
    for level, answer in zip(missing, answers, strict=True):
        if isinstance(answer, NoNodeError):
            raise session.failure(what, f"{level} could not be created: something removes nodes above it")
