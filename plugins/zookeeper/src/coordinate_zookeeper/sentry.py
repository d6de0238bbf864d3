"""What a watch on one node, set by one connection, has told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kazoo.protocol.states import WatchedEvent


class Sentry:
    """A watch on one node. Any event ends it, the connection's end included."""

    __slots__ = ("ended", "missing", "stranger")

    def __init__(self) -> None:
        self.ended = False
        self.missing = False
        """There was no node when it was posted."""
        self.stranger = False
        """The node was another session's."""

    def end(self, _: WatchedEvent) -> None:
        """Note an event; from the connection's thread."""
        self.ended = True
