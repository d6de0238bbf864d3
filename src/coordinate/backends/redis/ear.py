"""One subscribed connection to one server, which costs it nothing while nothing happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from coordinate.backends.redis.wires import number_of, pack
from coordinate.types import Topic

if TYPE_CHECKING:
    from coordinate.backends.redis.node import Node


class Ear:
    """Listens on a channel of its own for turns, and on one for each watched scope. Used under its watch's lock.

    After an error it is not used again: the driver would reconnect, unsubscribed.
    """

    def __init__(self, node: Node, channel: bytes) -> None:
        self.channel = channel
        self.scopes: dict[bytes, Topic] = {}
        self.pending: set[Topic] = set()
        self.news: dict[Topic, tuple[int, bytes]] = {}
        """By scope: how many changes were told, and what came along with the last one."""
        self.wire = node.address.connect()
        try:
            self.number = number_of(self.wire)
            self._converse(b"SUBSCRIBE", channel)
        except BaseException:
            self.wire.disconnect()
            raise

    def add(self, channel: bytes, topic: Topic) -> None:
        """Subscribe to a scope's channel; returns when the server has confirmed it."""
        self.scopes[channel] = topic
        self._converse(b"SUBSCRIBE", channel)

    def remove(self, channel: bytes) -> None:
        """Unsubscribe, without waiting for the confirmation: `hear` reads over it."""
        topic = self.scopes.pop(channel, None)
        if topic is not None:
            self.news.pop(topic, None)
            self.wire.send_packed_command([pack((b"UNSUBSCRIBE", channel))], check_health=False)

    def hear(self) -> set[Topic]:
        """Return what was published since the last call, out of the driver's buffer and the socket's."""
        while self.wire.can_read(timeout=0):
            self._take()
        pending, self.pending = self.pending, set()
        return pending

    def fall_silent(self) -> None:
        """Give the channel up; once confirmed, the server gives it no further turn. Earlier ones are pending."""
        self._converse(b"UNSUBSCRIBE", self.channel)

    def _converse(self, command: bytes, channel: bytes) -> None:
        """Send a (un)subscription and read until it is confirmed; what else arrives is kept."""
        self.wire.send_packed_command([pack((command, channel))], check_health=False)
        while self._take() != (command.lower(), channel):
            pass

    def _take(self) -> tuple[bytes, bytes]:
        """Take one message; return its kind and channel."""
        kind, channel, data = cast("tuple[bytes, bytes, bytes | int]", self.wire.read_response())
        if kind == b"message":
            topic = self.scopes.get(channel)
            if channel == self.channel:
                nonce, _, name = cast(bytes, data).decode(errors="replace").partition(" ")
                topic = Topic("lease", name, nonce)
            if topic is not None:
                self.pending.add(topic)
            if channel in self.scopes:
                number, _ = self.news.get(self.scopes[channel], (0, b""))
                self.news[self.scopes[channel]] = (number + 1, cast(bytes, data))
        return kind, channel
