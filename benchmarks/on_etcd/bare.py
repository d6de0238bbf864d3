"""etcd as bare as Python can talk to it: requests on one gRPC channel, and the server's own lock service.

The lock service is in no library for Python: its four messages are written here by hand, for the benchmark only.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from coordinate_etcd import messages
from coordinate_etcd.loader import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_etcd = load()

import grpc  # noqa: E402 -- after the loader has turned gRPC's own log off

_PATIENCE = 60.0


def field(number: int, value: bytes | int) -> bytes:
    """Return one field of a message as protobuf writes it: bytes with their length, or a number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    """Return a number, seven bits to a byte."""
    groups = []
    while number > 127:  # noqa: PLR2004 -- seven bits
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def bytes_of(message: bytes, number: int) -> bytes:
    """Return the value of a field that has a length."""
    at = 0
    while at < len(message):
        tag, at = _varint_at(message, at)
        value, at = _varint_at(message, at)
        if tag & 7 == 2:  # noqa: PLR2004 -- with a length
            if tag >> 3 == number:
                return message[at : at + value]
            at += value
    return b""


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:  # noqa: PLR2004 -- the last group
            return number, at


class Member:
    """One channel to one member, with the messages of python-etcd3 and nothing else of it."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.transact = _etcd.KVStub(self._channel).Txn
        self._lease = _etcd.LeaseStub(self._channel)
        self._watch = _etcd.WatchStub(self._channel).Watch
        self._lock = self._channel.unary_unary("/v3lockpb.Lock/Lock")
        self._unlock = self._channel.unary_unary("/v3lockpb.Lock/Unlock")

    def grant(self, ttl: float) -> int:
        """Return a new server lease."""
        return int(self._lease.LeaseGrant(_etcd.LeaseGrantRequest(TTL=max(1, round(ttl)))).ID)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a key."""
        self.transact(messages.transaction(success=[messages.put(key, value)]))

    def lock(self, name: bytes, lease: int) -> bytes:
        """Wait for etcd's own lock; return the key that is to be unlocked."""
        return bytes_of(self._lock(field(1, name) + field(2, lease), timeout=_PATIENCE), 2)

    def unlock(self, key: bytes) -> None:
        """Give it back."""
        self._unlock(field(1, key), timeout=_PATIENCE)

    def events(self, key: bytes) -> Iterator[Any]:
        """Yield a None when the key is watched, and then its changes."""
        over = threading.Event()
        create = _etcd.WatchCreateRequest(key=key)

        def requests() -> Iterator[Any]:
            yield _etcd.WatchRequest(create_request=create)
            over.wait()

        try:
            for response in self._watch(requests()):
                if response.created:
                    yield None
                yield from response.events
        finally:
            over.set()
