"""The names of keys and channels in Redis, and nothing else.

All keys of one lease share a hash tag, and so do those of one scope: in a Cluster each lives on one node.

==============================  =======================================================================
``<ns>:{l:<name>}:lease``       hash: nonce, token, ttl (ms), owner (JSON); expires with the lease
``<ns>:{l:<name>}:token``       hash: last, broken; expires after a week without use
``<ns>:{l:<name>}:queue``       sorted set: nonce of each waiter, by order of arrival; expires
``<ns>:{l:<name>}:waiters``     hash: nonce -> channel of its process; expires
``<ns>:{m:<scope>}:claim``      hash: token, nonce, record (JSON)
``<ns>:{m:<scope>}:markers``    hash: ``<step>@<revision>``, each encoded -> record (JSON)
``<ns>:{m:<scope>}:changed``    channel: something about this scope's markers changed
``<ns>:w:<random>``             channel: wake-ups of one process
``<ns>:{<tag>}:incarnation``    hash: incarnation, until and wait (us), longest (ms) of its server
==============================  =======================================================================
"""

from __future__ import annotations

import functools
import secrets
from typing import NamedTuple
from urllib.parse import quote, unquote

from coordinate import _names


class LeaseKeys(NamedTuple):
    """The keys of one lease."""

    lease: bytes
    token: bytes
    queue: bytes
    waiters: bytes


class ScopeKeys(NamedTuple):
    """The keys of one scope, and its channel."""

    claim: bytes
    markers: bytes
    changed: bytes


def _safe(text: str) -> str:
    # Allowed names stay as they are; braces, colons and glob characters never get into a key unescaped.
    return quote(text, safe="/")


class Keys:
    """Key names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._prefix = _safe(namespace)
        # A bound is what the cache is for: a process that walks through many names must not keep them all.
        self.lease = functools.lru_cache(maxsize=1024)(self._lease)
        self.scope = functools.lru_cache(maxsize=256)(self._scope)

    def _lease(self, name: str) -> LeaseKeys:
        tag = f"{self._prefix}:{{l:{_safe(name)}}}:"
        return LeaseKeys(*((tag + field).encode() for field in LeaseKeys._fields))

    def _scope(self, scope: str) -> ScopeKeys:
        tag = f"{self._prefix}:{{m:{_safe(scope)}}}:"
        return ScopeKeys(*((tag + field).encode() for field in ScopeKeys._fields))

    def channel(self) -> bytes:
        """Return a new channel for one process's wake-ups."""
        return f"{self._prefix}:w:{secrets.token_hex(16)}".encode()

    def incarnation(self, tag: str) -> bytes:
        """Return the record about the server on which keys with this hash tag live."""
        return f"{self._prefix}:{{{tag}}}:incarnation".encode()

    def lease_pattern(self, prefix: str) -> bytes:
        """Return the glob for the lease keys of all names with a prefix."""
        return f"{self._prefix}:{{l:{_safe(prefix)}*}}:lease".encode()

    def scope_pattern(self) -> bytes:
        """Return the glob for everything that is stored about scopes."""
        return f"{self._prefix}:{{m:*}}:*".encode()

    def name_of(self, key: bytes) -> str:
        """Return the lease name or scope that a key belongs to."""
        tagged = key.decode()[len(self._prefix) + len(":{l:") :]
        return unquote(tagged.rpartition("}:")[0])


def field(step: str, revision: str) -> bytes:
    """Return the hash field of a marker record."""
    return f"{_names.encode(step)}@{_names.encode(revision)}".encode()
