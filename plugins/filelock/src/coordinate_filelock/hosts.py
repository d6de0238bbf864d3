"""Which hosts may grant leases on a volume: one, unless each pair of them has proved that their locks exclude.

A file system that one kernel serves needs no proof. Every other one may be mounted elsewhere, by a kernel that
does not see our locks. Files in the folder ``hosts``, created once and never changed unless said otherwise:

- ``seat.<number>``: the members that may grant; the highest number counts. Who creates it, exclusively, has
  proofs with every member that it keeps.
- ``beat.<member>.<ttl in ms>``: rewritten at each grant and renewal on that host: it lives, and this long its
  leases are.
- ``proof.<member>.<member>``: the outcome of a rendezvous (see `rendezvous`).
- ``ready.<number>``: from when on, by its own clock, the member that created that seat may grant.

Why two hosts without a proof never both hold a lease:

1. A host grants or renews only if, *after* its beat, a listing shows it in the highest seat. A deadline counts
   from before that.
2. A newcomer that leaves out a member creates the next seat, then lists the beats, then waits for the longest
   ttl in them. What the other host granted before it saw the new seat is over by then; afterwards it sees it.
3. It does so only after the member it leaves out has not beaten for as long. That is courtesy, not safety.

On a file system of one kernel, a different boot id means that the other kernel is gone: no wait. Such a seat is
never taken by a host that mounts the folder over a network: its processes would not notice.

Not promised: anything where a listing hides a file that another host created more than `SLACK` seconds ago.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

import msgspec

from coordinate import _wire
from coordinate.errors import Unsupported
from coordinate_filelock import mounts
from coordinate_filelock.mounts import Member  # noqa: TC001 -- msgspec reads the fields' types
from coordinate_filelock.rendezvous import Rendezvous, proof_of, read_or_none

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate._clock import Clock
    from coordinate_filelock.volume import Folder, Volume

FOLDER = "hosts"
SLACK = 5.0
"""Seconds that a listing may be late, and a process between its look and its grant."""
AGAIN = 0.25
"""Seconds after which a host that waits for others looks again."""
_WAY_OUT = (
    "keep the leases in Redis, etcd or ZooKeeper (COORDINATE_URL) and this volume for the markers "
    "(COORDINATE_MARKERS_URL), or run on one host"
)


class Seat(msgspec.Struct, frozen=True):
    """Who may grant. ``waiting`` are the members that must not before the time in their ``ready`` file."""

    number: int
    members: list[Member]
    waiting: dict[str, int]
    v: int = 1


class Ready(msgspec.Struct, frozen=True):
    """From when on, in seconds since that host's boot, its member may grant."""

    at: float
    v: int = 1


class Hosts:
    """Admission of this host to one namespace of a volume."""

    def __init__(self, volume: Volume, clock: Clock, here: Callable[[int], Member] = mounts.here) -> None:
        self._volume = volume
        self._clock = clock
        self._here = here
        self._settled = False
        self.kernel = ""
        """The boot id, once it is known that no other kernel can write here."""
        self._mutex = threading.Lock()
        self._rendezvous = Rendezvous(clock)
        self._seen: dict[str, bytes | None] | None = None
        self._since = clock.now()
        self._alive = False

    def admit(self, ttl: float) -> float:
        """Return 0 if this host may grant or renew for so long from now on, else seconds after which to ask again.

        Raises:
            Unsupported: another host uses the volume, and there is no proof that the two exclude each other.
        """
        if self._settled:
            return 0.0
        # Two threads must not play the same part of a rendezvous: each one's lock would refuse the other's.
        with self._mutex, self._volume.open(FOLDER, create=True) as folder:
            me = self._here(folder.fd)
            while True:
                seat = highest(folder)
                if not _in(me, seat):
                    wait, proposed = self._as_newcomer(folder, me, seat)
                    if proposed is None:
                        return wait
                    _sit(folder, proposed)
                    continue
                found = self._as_member(folder, me, seat, ttl)
                if found is not None:
                    return found

    def keeps(self, ttl: float) -> bool:
        """Return whether this host, which has granted leases, may renew them; never changes who sits.

        Raises:
            FileNotFoundError: the folder is gone.
        """
        if self._settled:
            return True
        with self._mutex, self._volume.open(FOLDER, create=False) as folder:
            me = self._here(folder.fd)
            return _in(me, highest(folder)) and self._as_member(folder, me, highest(folder), ttl) == 0

    def proven(self) -> bool:
        """Return whether this host sits beside another one."""
        with contextlib.suppress(OSError), self._volume.open(FOLDER, create=False) as folder:
            seat = highest(folder)
            return seat is not None and len(seat.members) > 1 and _in(self._here(folder.fd), seat)
        return False

    def verdict(self, folder: Folder) -> tuple[Member, str]:
        """Return this host as a member, and in words what several hosts can expect."""
        me = self._here(folder.fd)
        if me.local:
            return me, "one kernel serves this file system: processes of this host only"
        if self.proven():
            return me, "several: exclusion was proved between the hosts that use it"
        return me, "one at a time: a second one is refused unless a rendezvous of the two proves exclusion"

    def _as_member(self, folder: Folder, me: Member, seat: Seat | None, ttl: float) -> float | None:
        """Return when we may grant; None: it changed, look again."""
        if me.local:
            self._settled, self.kernel = True, me.boot_id
            return 0.0
        folder.touch(f"beat.{me.key}.{round(ttl * 1000):09}", os.urandom(8).hex().encode())
        after = highest(folder)
        if seat is None or after is None or after.number != seat.number:
            return None
        self._rendezvous.answer(folder, me)
        number = seat.waiting.get(me.key)
        if number is None:
            return 0.0
        written = read_or_none(folder, f"ready.{number:020}")
        if written is None:
            # Whoever created the seat died, or is about to write this: any process of this host may.
            with contextlib.suppress(FileExistsError):
                folder.publish(f"ready.{number:020}", _wire.encode(Ready(self._clock.now() + longest(folder))))
            return None
        return max(0.0, _wire.decode(Ready, written).at - self._clock.now())

    def _as_newcomer(self, folder: Folder, me: Member, seat: Seat | None) -> tuple[float, Seat | None]:
        """Return the seat to create, or after how long to look again."""
        if seat is None:
            return 0.0, Seat(1, [me], {})
        if me.local and all(member.local for member in seat.members):
            return 0.0, Seat(seat.number + 1, [me], {})
        strangers = [member for member in seat.members if not proof_of(folder, me, member).good]
        if not strangers:
            # Who was left out earlier may not be over yet: wait as the one did who left it out.
            waiting = seat.waiting | ({me.key: seat.number + 1} if seat.waiting else {})
            return 0.0, Seat(seat.number + 1, [*seat.members, me], waiting)
        self._observe(folder, strangers)
        if any(member.local for member in strangers):
            raise _refused(me, strangers, "one of them uses the folder without a network")
        silence = self._clock.now() - self._since
        if not self._alive:
            if silence < longest(folder):
                return min(AGAIN, longest(folder) - silence), None
            kept = [member for member in seat.members if member not in strangers]
            waiting = {key: number for key, number in seat.waiting.items() if key in {one.key for one in kept}}
            return 0.0, Seat(seat.number + 1, [*kept, me], waiting | {me.key: seat.number + 1})
        why = self._rendezvous.ask(folder, me, strangers[0], within=2 * longest(folder))
        if why:
            raise _refused(me, strangers, why)
        return AGAIN, None

    def _observe(self, folder: Folder, strangers: list[Member]) -> None:
        """Note whether any of these hosts has beaten since we first looked, or for long not at all."""
        keys = {member.key for member in strangers}
        names = [name for name in folder.names() if name.startswith("beat.") and name.split(".")[1] in keys]
        seen = {name: read_or_none(folder, name) for name in names}
        now = self._clock.now()
        if self._seen is None:
            self._since = now
        elif seen != self._seen:
            self._alive, self._since = True, now
        elif now - self._since > longest(folder):
            self._alive = False
        self._seen = seen


def _in(me: Member, seat: Seat | None) -> bool:
    return seat is not None and any(member.key == me.key for member in seat.members)


def _sit(folder: Folder, seat: Seat) -> None:
    """Create the next seat; somebody else may have been quicker, so look again in any case."""
    with contextlib.suppress(FileExistsError):
        folder.publish(f"seat.{seat.number:020}", _wire.encode(seat))


def highest(folder: Folder) -> Seat | None:
    """Return the seat that counts.

    Raises:
        CorruptRecord: it cannot be read: then nobody is let in.
    """
    top = max((name for name in folder.names() if name.startswith("seat.")), default=None)
    return None if top is None else _wire.decode(Seat, folder.read(top, _wire.LIMIT) or b"")


def longest(folder: Folder) -> float:
    """Return the longest ttl that any host has ever granted here, and the slack."""
    lengths = [name.rpartition(".")[2] for name in folder.names() if name.startswith("beat.")]
    return max((int(text) / 1000 for text in lengths if text.isdecimal()), default=0.0) + SLACK


def _refused(me: Member, strangers: list[Member], why: str) -> Unsupported:
    others = ", ".join(map(str, strangers))
    message = f"several hosts use this volume, and locks of {me.kind!r} are not known to exclude them: {why}. "
    return Unsupported(f"{message}Refused here: {me}; may grant: {others}. Way out: {_WAY_OUT}")
