"""The format of a scope's files: names, contents, what a listing says. The rules are in `markers`."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from coordinate import _wire
from coordinate.types import Claim, MarkerRecord  # noqa: TC001 -- msgspec reads the fields' types

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coordinate_filelock.volume import Folder

NEWS = ("claim.", "seal.", "m.", "reset.", "changed")
"""How the names of files begin whose appearance is a change."""
SEAL_LIMIT = 16 << 20
_PATTERN = re.compile(r"(?:(claim|seal)|(m|reset)\.([0-9a-f]{32}))\.([0-9]{20})(?:\.([0-9]{6,18}))?")
_T = TypeVar("_T", bound="ClaimFile | RecordFile | SealFile")


class Id(NamedTuple):
    """Which writing of a record: the token it was written under, and its number there."""

    token: int
    number: int


class RecordFile(msgspec.Struct, frozen=True):
    """Content of a record's file, and an entry of a seal."""

    scope: str
    token: int
    number: int
    record: MarkerRecord
    v: int = 1

    @property
    def id(self) -> Id:
        """Return which writing this is."""
        return Id(self.token, self.number)

    @property
    def key(self) -> str:
        """Return the file name part for its step and revision."""
        return key_of(self.record.step, self.record.revision)

    @property
    def file(self) -> str:
        """Return the name of the file that this is the content of."""
        return record_name("m", self.key, self.id)


class ClaimFile(msgspec.Struct, frozen=True):
    """Content of a claim's file."""

    scope: str
    token: int
    claim: Claim
    v: int = 1

    @property
    def file(self) -> str:
        """Return the name of the file that this is the content of."""
        return name_of("claim", self.token)


class SealFile(msgspec.Struct, frozen=True):
    """Content of a seal's file."""

    scope: str
    token: int
    records: list[RecordFile]
    v: int = 1

    @property
    def file(self) -> str:
        """Return the name of the file that this is the content of."""
        return name_of("seal", self.token)


class Listing:
    """What the names in a scope's folder say."""

    def __init__(self, names: Iterable[str]) -> None:
        self.tokens: dict[str, list[int]] = {"claim": [], "seal": []}
        self.ids: dict[str, dict[str, list[Id]]] = {"m": defaultdict(list), "reset": defaultdict(list)}
        for name in names:
            match = _PATTERN.fullmatch(name)
            if match:
                self._note(*match.groups())
        self.top = max(self.tokens["claim"], default=0)
        """The highest claim, 0 if there is none."""
        self.seals = sorted(self.tokens["seal"], reverse=True)

    def _note(self, plain: str | None, keyed: str | None, key: str, token: str, number: str | None) -> None:
        if plain and number is None:
            self.tokens[plain].append(int(token))
        elif keyed and number is not None:
            self.ids[keyed][key].append(Id(int(token), int(number)))

    def reset(self, key: str) -> Id:
        """Return up to which writing a key's records were removed."""
        return max(self.ids["reset"].get(key, ()), default=Id(-1, -1))

    def next_number(self, key: str, token: int) -> int:
        """Return a number that no writing under this token had."""
        ids = [*self.ids["m"].get(key, ()), self.reset(key)]
        return max((number for written, number in ids if written == token), default=0) + 1


def key_of(step: str, revision: str) -> str:
    """Return the file name part for a step of a revision: bounded, blind to no difference in case."""
    return hashlib.sha256(f"{step}\0{revision}".encode()).hexdigest()[:32]


def read_file(folder: Folder, kind: type[_T], scope: str, name: str) -> _T | None:
    """Return a file's content; None if it is damaged, or not what the file's name says.

    Raises:
        FileNotFoundError: it vanished.
    """
    limit = SEAL_LIMIT if kind is SealFile else _wire.LIMIT
    data = folder.read(name, limit)
    if data is None or len(data) > limit:
        return None
    try:
        content = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    good = content.scope == scope and content.file == name and content.v == _wire.VERSION
    return content if good else None


def name_of(kind: str, token: int) -> str:
    """Return the file name of a claim or seal."""
    return f"{kind}.{token:020}"


def record_name(kind: str, key: str, written: Id) -> str:
    """Return the file name of a record or reset."""
    return f"{kind}.{key}.{written.token:020}.{written.number:06}"
