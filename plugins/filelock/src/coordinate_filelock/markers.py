"""Markers: a claim, a seal and immutable records, all created by ``link``; no lock.

In a scope's folder, with tokens as 20 digits, so that names sort:

- ``claim.<token>``: the leader's registration. Its *name* alone refuses lower tokens, whatever happened to
  its content.
- ``seal.<token>``: every record that counts at the moment of that claim, not only the done ones, so that
  attempts and failures outlive a leader, too. Made from a listing that was taken after the claim was visible;
  created once.
- ``m.<key>.<token>.<number>``: one record, never changed; ``key`` is a hash of step and revision, the content
  decides.
- ``reset.<key>.<token>.<number>``: an operator removed that record and the earlier ones of its key.

**What counts**: the records of the highest seal, and above them the ``m`` files of that seal's token; of one
key the greatest (token, number), unless reset.

Why this keeps P3 and P4, without a lock:

1. `claim` returns only after its seal is there and a listing *after that* shows no higher claim. Records
   under a token need its seal first. So nothing is written under a claim that a later one has not seen sealed
   or will not refuse.
2. A write is acknowledged only when a listing after it shows no higher claim. Then every later claim, and so
   every listing that a later seal is made from, comes after the record: whatever was acknowledged is sealed.
3. A late write of a deposed leader, linked after the next seal's listing, is in no seal and under no counting
   token: it never counts. One that was linked before that listing counts although its writer is told
   `StaleToken`: it happened before the newer leader was accepted. It is *not* withdrawn: a reader may have
   seen it.
4. A reader accepts a listing only if its highest claim is sealed in it, and a second listing shows the same
   highest claim. Everything it saw was linked before any later claim, hence is in all later seals: done, once
   read, stays.
5. A claimer that died before its seal blocks nobody: whoever comes by, reader or claimer, makes the seal for
   it; which of several wins does not matter. (A reader that may not write falls back to the last seal; 4 does
   not hold for it.)

After a claim, files of generations before the previous one are removed; readers list again when a file
vanished. If the highest seal is damaged, the previous generation and the later records stand in for it.
Damaged or foreign files never count as done.
"""

from __future__ import annotations

import contextlib
import errno
from collections import defaultdict
from typing import NamedTuple

import msgspec

from coordinate import _wire
from coordinate.errors import AlreadyDone, ConfigError, StaleToken
from coordinate.types import Claim, MarkerRecord, MarkerState, MarkerView
from coordinate_filelock.records import (
    SEAL_LIMIT,
    ClaimFile,
    Listing,
    RecordFile,
    SealFile,
    key_of,
    name_of,
    read_file,
    record_name,
)
from coordinate_filelock.volume import Folder, Volume, stem, unstem

FOLDER = "markers"
_ATTEMPTS = 50


class State(NamedTuple):
    """A reading of a scope that all its files agreed with."""

    listing: Listing
    claim: Claim | None
    records: dict[str, RecordFile]


class MarkerFiles:
    """The marker operations of one namespace. Errors of the system come as `OSError`."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def folder(self, scope: str, *, create: bool) -> Folder:
        """Open a scope's folder."""
        name = stem(scope)
        folder = self._volume.open(FOLDER, name, create=create)
        if create and unstem(name) is None:  # the name cannot be read off a hash
            with contextlib.suppress(FileExistsError):
                folder.publish("name", scope.encode())
        return folder

    def claim(self, scope: str, claim: Claim) -> None:
        """Link the claim, have it sealed, look again, and only then believe it."""
        if claim.token < 1:
            message = f"a claim needs a token of at least 1, not {claim.token}"
            raise ConfigError(message)
        with self.folder(scope, create=True) as folder:
            top = Listing(folder.names()).top
            if top > claim.token:
                raise _refused(scope, claim.token, top)
            mine = ClaimFile(scope, claim.token, claim)
            try:
                folder.publish(mine.file, _wire.encode(mine))
            except FileExistsError:
                if not _is_mine(folder, mine):
                    raise _refused(scope, claim.token, claim.token) from None
            state = read(folder, scope)
            if state.listing.top != claim.token:
                raise _refused(scope, claim.token, state.listing.top)
            folder.sync()  # the seal may be somebody else's, and the claim an earlier attempt's
            with contextlib.suppress(OSError):  # rubbish that stays is only rubbish
                prune(folder, scope, state.listing)

    def put(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Link the record if the token is the highest claim's, and look again before it is acknowledged."""
        try:
            folder = self.folder(scope, create=token == 0)
        except FileNotFoundError:
            raise _refused(scope, token, 0) from None
        with folder:
            for _ in range(_ATTEMPTS):
                state = read(folder, scope)
                if state.listing.top != token:
                    raise _refused(scope, token, state.listing.top)
                if _is_stored(state, record):
                    folder.sync()  # whoever linked it may have failed before it was durable
                    return
                if write(folder, scope, record, state):
                    return
        raise _busy(scope)

    def view(self, scope: str) -> MarkerView:
        """Read the claim and the records that count."""
        try:
            folder = self.folder(scope, create=False)
        except FileNotFoundError:
            return MarkerView(None)
        with folder:
            state = read(folder, scope, helping=False)
            return MarkerView(state.claim, tuple(found.record for found in state.records.values()))

    def delete(self, scope: str, step: str, revision: str) -> bool:
        """Leave a reset that hides this writing and earlier ones; the leader's next one counts again."""
        key = key_of(step, revision)
        with contextlib.suppress(FileNotFoundError), self.folder(scope, create=False) as folder:
            found = read(folder, scope, helping=False).records.get(key)
            if found is not None:
                with contextlib.suppress(FileExistsError):
                    note = f"{step} {revision}\n".encode()
                    folder.publish(record_name("reset", key, found.id), note)
                    return True
        return False

    def scopes(self) -> list[str]:
        """Return the scopes that hold a claim or a record."""
        try:
            with self._volume.open(FOLDER, create=False) as folder:
                names = [_scope_name(folder, name) for name in folder.names()]
        except FileNotFoundError:
            return []
        views = {name: self.view(name) for name in names if name is not None}
        return sorted(name for name, view in views.items() if view.claim or view.records)


def read(folder: Folder, scope: str, *, helping: bool = True) -> State:
    """Return what counts, sealing the highest claim if its claimer has not (yet).

    Without ``helping``, a folder that cannot be written is read as it is.
    """
    readable = True
    for _ in range(_ATTEMPTS):
        listing = Listing(folder.names())
        with contextlib.suppress(FileNotFoundError):  # pruned under us: list again
            if readable and listing.top not in {0, *listing.seals}:
                try:
                    seal(folder, scope, listing)
                except FileNotFoundError:
                    raise
                except OSError:
                    if helping:
                        raise
                    readable = False
                continue
            state = State(listing, leader(folder, scope, listing), counting(folder, scope, listing))
            if Listing(folder.names()).top == listing.top:
                return state
    raise _busy(scope)


def leader(folder: Folder, scope: str, listing: Listing) -> Claim | None:
    """Return the highest claim that can be read.

    Raises:
        FileNotFoundError: it vanished since.
    """
    for token in sorted(listing.tokens["claim"], reverse=True):
        found = read_file(folder, ClaimFile, scope, name_of("claim", token))
        if found is not None:
            return found.claim
    return None


def seal(folder: Folder, scope: str, listing: Listing) -> None:
    """Decide what counts from the highest claim of this listing on; nobody can change it afterwards."""
    records = list(counting(folder, scope, listing).values())
    data = msgspec.json.encode(SealFile(scope, listing.top, records))  # many records: it has a limit of its own
    if len(data) > SEAL_LIMIT:
        raise OSError(errno.EFBIG, "the scope's records are too many for a seal: delete old ones", scope)
    with contextlib.suppress(FileExistsError):
        folder.publish(name_of("seal", listing.top), data)


def counting(folder: Folder, scope: str, listing: Listing) -> dict[str, RecordFile]:
    """Return by key the records that count according to a listing.

    Raises:
        FileNotFoundError: a file vanished since.
    """
    base = 0
    found: dict[str, RecordFile] = {}
    for token in listing.seals:
        sealed = read_file(folder, SealFile, scope, name_of("seal", token))
        if sealed is not None:
            base = token
            found = {one.key: one for one in sealed.records}
            break
    # Above the base there are seals only if they are damaged: what was written under them was acknowledged.
    tokens = {base, *(token for token in listing.seals if token > base)}
    for key, ids in listing.ids["m"].items():
        for written in sorted((one for one in ids if one.token in tokens), reverse=True):
            record = read_file(folder, RecordFile, scope, record_name("m", key, written))
            if record is not None:
                found[key] = record
                break
    return {key: one for key, one in found.items() if one.id > listing.reset(key)}


def write(folder: Folder, scope: str, record: MarkerRecord, state: State) -> bool:
    """Link one record under the highest claim; False: another thread of the leader was quicker."""
    key, token = key_of(record.step, record.revision), state.listing.top
    mine = RecordFile(scope, token, state.listing.next_number(key, token), record)
    data = _wire.encode(mine)
    try:
        folder.publish(mine.file, data)
    except FileExistsError:
        return False
    top = Listing(folder.names()).top
    if top != token:
        raise _refused(scope, token, top)
    return True


def prune(folder: Folder, scope: str, listing: Listing) -> None:
    """Remove what neither the present generation nor the previous one needs."""
    kept = listing.seals[:2] if listing.seals[:1] == [listing.top] else []
    if not kept:
        return
    for kind, tokens in listing.tokens.items():
        for token in tokens:
            if token < kept[-1] or kept[-1] < token < listing.top:
                folder.remove(name_of(kind, token))
    for key, ids in listing.ids["m"].items():
        for written in ids:
            if written.token < kept[-1]:
                folder.remove(record_name("m", key, written))
    _prune_resets(folder, scope, listing, kept)
    folder.sweep()


def _prune_resets(folder: Folder, scope: str, listing: Listing, kept: list[int]) -> None:
    """Remove the resets that hide nothing any more in any file that is kept."""
    seals = [read_file(folder, SealFile, scope, name_of("seal", token)) for token in kept]
    present = defaultdict(list)
    for one in (one for sealed in seals if sealed for one in sealed.records):
        present[one.key].append(one.id)
    for key, resets in listing.ids["reset"].items():
        present[key] += [one for one in listing.ids["m"].get(key, ()) if one.token >= kept[-1]]
        for reset in resets:
            if reset.token < listing.top and not any(one <= reset for one in present[key]):
                folder.remove(record_name("reset", key, reset))


def _is_mine(folder: Folder, mine: ClaimFile) -> bool:
    """Return whether the claim that has this token already is of the same owner: a repeated request."""
    try:
        present = read_file(folder, ClaimFile, mine.scope, mine.file)
    except FileNotFoundError:  # a newer leader has removed it since
        return False
    return present is not None and present.claim.owner.nonce == mine.claim.owner.nonce


def _is_stored(state: State, record: MarkerRecord) -> bool:
    """Return whether this very record is there, or a later one; refuse any other after done."""
    found = state.records.get(key_of(record.step, record.revision))
    if found is None or found.record == record:
        return found is not None
    if found.record.state is MarkerState.DONE:
        message = f"step {record.step!r} of {record.revision!r} is done already"
        raise AlreadyDone(message)
    return record.late_for(found.record)


def _scope_name(folder: Folder, name: str) -> str | None:
    scope = unstem(name)
    if scope is None:
        with contextlib.suppress(OSError, UnicodeDecodeError), folder.child(name, create=False) as inner:
            scope = (inner.read("name", _wire.LIMIT) or b"").decode()
    return scope if scope and stem(scope) == name else None


def _refused(scope: str, token: int, top: int) -> StaleToken:
    return StaleToken(f"token {token} refused in {scope!r}: {top or 'no token'} is registered", top)


def _busy(scope: str) -> OSError:
    return OSError(errno.EBUSY, "the scope changed at each of many looks", scope)
