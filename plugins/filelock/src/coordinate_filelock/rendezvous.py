"""A rendezvous: two hosts find out, with two locks on the volume, whether each one's lock excludes the other.

One asks, one answers, each at its own operations, so it takes a few of the answering host's renewals:

1. ``ask``: the asker names whom it asks.
2. ``hold``: the asked one has locked the first probe.
3. ``refused``: the asker tried to lock it, was refused, and has locked the second probe.
4. ``twice``: the asked one tried that, was refused, and has let go of the first.
5. ``proof``: the asker could lock the first one now, so that it was refused because of the other's lock.

Each file is created once, by the process that did what it says; a process that dies takes its part with it, and
the asker begins anew. A lock that was *not* refused is tried again with new probes, because its holder may
have died; after `TRIES` of them the outcome is recorded as bad.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from filelock import lock_descriptor

from coordinate import _wire
from coordinate_filelock.mounts import Member  # noqa: TC001 -- msgspec reads the fields' types

if TYPE_CHECKING:
    from coordinate._clock import Clock
    from coordinate_filelock.volume import Folder

TRIES = 3
ANSWER_WITHIN = 120.0
"""Seconds after which the asked one lets go of a probe that nobody cares for any more."""


class Proof(msgspec.Struct, frozen=True):
    """What came out between two hosts, with the mounts that it holds for."""

    asker: Member | None = None
    asked: Member | None = None
    good: bool = False
    why: str = "no rendezvous yet"
    v: int = 1


def read_or_none(folder: Folder, name: str) -> bytes | None:
    """Return a small file's content, or None if there is none."""
    try:
        return folder.read(name, _wire.LIMIT)
    except FileNotFoundError:
        return None


def _name_of(one: Member, two: Member) -> str:
    return ".".join(("proof", *sorted((one.key, two.key))))


def proof_of(folder: Folder, one: Member, two: Member) -> Proof:
    """Return what is known about two members; not good where there was no rendezvous."""
    data = read_or_none(folder, _name_of(one, two))
    return Proof() if data is None else _wire.decode(Proof, data)


_PROBES: set[int] = set()
"""Descriptors of this process that are locked: a forked child must not keep its dead parent's probes."""


def _forget_in_child() -> None:
    for fd in _PROBES:
        os.close(fd)
    _PROBES.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _locked(folder: Folder, name: str) -> int | None:
    fd = folder.open_lock(name)
    if lock_descriptor(fd, blocking=False):
        _PROBES.add(fd)
        return fd
    os.close(fd)
    return None


def _free(fd: int | None) -> None:
    if fd is not None:
        _PROBES.discard(fd)
        os.close(fd)


class Rendezvous:
    """This process's part in all of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answering: dict[str, tuple[int, float]] = {}
        self._asking = ""
        self._since = 0.0
        self._tries = 0
        self._second: int | None = None

    def answer(self, folder: Folder, me: Member) -> None:
        """Take the next step of every rendezvous that this host is asked for."""
        names = set(folder.names())
        for name in sorted(names):
            if name.startswith(f"ask.{me.key}."):
                self._answer(folder, names, name.rpartition(".")[2])
        for token, (fd, since) in list(self._answering.items()):
            if self._clock.now() - since > ANSWER_WITHIN:
                _free(fd)
                del self._answering[token]

    def _answer(self, folder: Folder, names: set[str], token: str) -> None:
        if token in self._answering:
            if f"refused.{token}" in names:
                second = _locked(folder, f"probe2.{token}")
                fd, _ = self._answering.pop(token)
                _free(fd)
                _free(second)
                _say(folder, f"twice.{token}", b"got it" if second is not None else b"refused")
        elif f"hold.{token}" not in names:
            first = _locked(folder, f"probe1.{token}")
            if first is not None and _say(folder, f"hold.{token}", b""):
                self._answering[token] = first, self._clock.now()
            else:
                _free(first)

    def ask(self, folder: Folder, me: Member, other: Member, within: float) -> str:
        """Take the next step of ours; return why there is no proof, once that is certain, else nothing."""
        proof = proof_of(folder, me, other)
        if proof.why and proof.asker is not None:
            return proof.why
        now = self._clock.now()
        if not self._asking:
            self._asking, self._since = os.urandom(8).hex(), now
            _say(folder, f"ask.{other.key}.{self._asking}", _wire.encode(me))
        elif now - self._since > within:
            self._end(folder, other)
            return f"{other} did not take part in a rendezvous within {within:g} s"
        else:
            self._step(folder, me, other)
        return ""

    def _step(self, folder: Folder, me: Member, other: Member) -> None:
        names, token = set(folder.names()), self._asking
        if f"twice.{token}" in names:
            control = _locked(folder, f"probe1.{token}")
            _free(control)
            refused = control is not None and read_or_none(folder, f"twice.{token}") == b"refused"
            self._conclude(folder, me, other, good=refused)
        elif f"hold.{token}" in names and f"refused.{token}" not in names:
            first = _locked(folder, f"probe1.{token}")
            self._second = _locked(folder, f"probe2.{token}") if first is None else None
            _free(first)
            if self._second is None:
                self._conclude(folder, me, other, good=False)
            else:
                _say(folder, f"refused.{token}", b"")

    def _conclude(self, folder: Folder, me: Member, other: Member, *, good: bool) -> None:
        self._tries += 1
        if good or self._tries >= TRIES:
            why = "" if good else "a lock of one host did not keep the other out"
            _say(folder, _name_of(me, other), _wire.encode(Proof(me, other, good, why)))
            self._tries = 0
        self._end(folder, other)

    def _end(self, folder: Folder, other: Member) -> None:
        """Let go, and take away what this attempt has left."""
        token, self._asking = self._asking, ""
        _free(self._second)
        self._second = None
        folder.remove(f"ask.{other.key}.{token}")
        for name in ("hold", "refused", "twice", "probe1", "probe2"):
            folder.remove(f"{name}.{token}")


def _say(folder: Folder, name: str, data: bytes) -> bool:
    """Create a file durably; False if somebody else has."""
    try:
        folder.publish(name, data)
    except FileExistsError:
        return False
    return True
