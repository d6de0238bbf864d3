"""Requests in etcd's words, made short. Every read asks a quorum (none is serializable in etcd's sense)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from coordinate_etcd.loader import load

if TYPE_CHECKING:
    from collections.abc import Sequence

Message: TypeAlias = Any
"""A message of etcd's, whose class is made at run time."""

_etcd = load()
NO_PUT = _etcd.WatchCreateRequest.NOPUT
DELETE = 1
"""Number of the kind of event; its enumeration is in a file of its own."""


def get(key: bytes, end: bytes = b"", **more: object) -> Message:
    """Read a key, or all keys from ``key`` up to ``end``."""
    return _etcd.RequestOp(request_range=_etcd.RangeRequest(key=key, range_end=end, **more))


def newest_before(line: bytes, end: bytes, revision: int) -> Message:
    """Read which key of a range was created last before a revision."""
    order = {"sort_order": _etcd.RangeRequest.DESCEND, "sort_target": _etcd.RangeRequest.CREATE}
    return get(line, end, keys_only=True, limit=1, max_create_revision=revision - 1, **order)


def put(key: bytes, value: bytes, lease: int = 0) -> Message:
    """Write a key, bound to a server lease unless 0."""
    return _etcd.RequestOp(request_put=_etcd.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes) -> Message:
    """Remove a key."""
    return _etcd.RequestOp(request_delete_range=_etcd.DeleteRangeRequest(key=key))


def created(key: bytes, revision: int) -> Message:
    """Compare: the key was created by that revision; 0: there is no such key."""
    compare = _etcd.Compare
    return compare(target=compare.CREATE, result=compare.EQUAL, key=key, create_revision=revision)


def modified(key: bytes, revision: int) -> Message:
    """Compare: the key was last written by that revision; 0: there is no such key."""
    compare = _etcd.Compare
    return compare(target=compare.MOD, result=compare.EQUAL, key=key, mod_revision=revision)


def transaction(
    compare: Sequence[Message] = (), success: Sequence[Message] = (), otherwise: Sequence[Message] = ()
) -> Message:
    """Do ``success`` if every comparison holds, else ``otherwise``, at one revision."""
    return _etcd.TxnRequest(compare=compare, success=success, failure=otherwise)


def found(reply: Message, index: int) -> list[Message]:
    """Return the keys and values that the read at that place of a transaction found."""
    return list(reply.responses[index].response_range.kvs)


def first(reply: Message, index: int) -> Message | None:
    """Return the first of them, or None."""
    return next(iter(found(reply, index)), None)
