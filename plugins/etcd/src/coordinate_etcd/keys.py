"""The names of all keys. Nothing else knows them.

::

    <prefix>/<namespace>/leases/<name>                          a held lease, bound to its holder's server lease
    <prefix>/<namespace>/queue/<name>:<nonce>                   a waiter, bound to its process's server lease
    <prefix>/<namespace>/broken/<name>                          last written by the last break of the name
    <prefix>/<namespace>/base                                   what is added to revisions to make tokens
    <prefix>/<namespace>/scopes/<scope>:claim                   the leader that is registered
    <prefix>/<namespace>/scopes/<scope>:marker:<step>:<rev>     one record
    <prefix>/<namespace>/scopes/<scope>:bell                    written by `notify`

No name holds a colon, so none is the beginning of another's keys; steps and revisions are percent-encoded.
"""

from __future__ import annotations

from coordinate._names import encode

_CLAIM, _MARKER, _BELL = b":claim", b":marker:", b":bell"


def after(prefix: bytes) -> bytes:
    """Return the first key behind all those that start with ``prefix``."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Keys:
    """Keys below one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self.base = self._prefix + b"base"
        self.leases = self._prefix + b"leases/"
        self.scopes = self._prefix + b"scopes/"

    def lease(self, name: str) -> bytes:
        """Return where the lease of a name is."""
        return self.leases + name.encode()

    def name(self, lease: bytes) -> str:
        """Return the name that a lease's key is for."""
        return lease[len(self.leases) :].decode()

    def broken(self, name: str) -> bytes:
        """Return what a break of a name touches."""
        return self._prefix + b"broken/" + name.encode()

    def line(self, name: str) -> bytes:
        """Return what the keys of all waiters for a name start with."""
        return self._prefix + b"queue/" + name.encode() + b":"

    def place(self, name: str, nonce: str) -> bytes:
        """Return the key of one waiter."""
        return self.line(name) + encode(nonce).encode()

    def scope(self, scope: str) -> bytes:
        """Return what everything of a scope starts with."""
        return self.scopes + scope.encode() + b":"

    def claim(self, scope: str) -> bytes:
        """Return where the claim of a scope is."""
        return self.scopes + scope.encode() + _CLAIM

    def markers(self, scope: str) -> bytes:
        """Return what all records of a scope start with."""
        return self.scopes + scope.encode() + _MARKER

    def marker(self, scope: str, step: str, revision: str) -> bytes:
        """Return where one record is."""
        return self.markers(scope) + f"{encode(step)}:{encode(revision)}".encode()

    def is_marker(self, key: bytes) -> bool:
        """Return whether a record is there, be it of whatever scope."""
        return key[len(self.scopes) :].partition(b":")[2].startswith(_MARKER[1:])

    def bell(self, scope: str) -> bytes:
        """Return what is written only to be noticed."""
        return self.scopes + scope.encode() + _BELL

    def scope_of(self, key: bytes) -> str | None:
        """Return which scope a claim or record belongs to; None for anything else."""
        name, _, kind = key[len(self.scopes) :].partition(b":")
        return name.decode() if kind == _CLAIM[1:] or kind.startswith(_MARKER[1:]) else None
