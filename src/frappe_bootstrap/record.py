"""Our record in the site's own database, so that every backup carries it: which creation, revision, migration it had.

It is a table ``__frappe_bootstrap`` with a row for each of the names below and one row more, the fence: the highest
token that has ever written here. Whoever comes with a lower one changes nothing. What cannot be read counts as not
there: a record proves something or it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TABLE = "__frappe_bootstrap"


class Creation(msgspec.Struct, frozen=True):
    """Who made this database: the site, and the nonce that is also in the marker of the step, before any effect."""

    nonce: str
    site: str
    database: str
    token: int = 0
    at: float = 0.0
    done: bool = False
    """Whether the creation has ended: a finished site is never filled again."""


class Revision(msgspec.Struct, frozen=True):
    """What the last migration brought the database to.

    Args:
        revision: its name.
        schema: fingerprint that decides about migrations.
        assets: fingerprint that decides about links.
        apps: version of each app.
        patches: of each app, its patches as a list, or a count and a digest.
        token: of the lease.
        at: wall clock, for people.
        earlier: marks of the revisions that the database was at before, the oldest first; none in older records.
    """

    revision: str
    schema: str = ""
    assets: str = ""
    apps: dict[str, str] = msgspec.field(default_factory=dict)
    patches: dict[str, list[str]] = msgspec.field(default_factory=dict)
    token: int = 0
    at: float = 0.0
    earlier: list[str] = msgspec.field(default_factory=list)


class Migrating(msgspec.Struct, frozen=True):
    """A migration that has begun and is not recorded as finished."""

    revision: str
    schema: str = ""
    apps: dict[str, str] = msgspec.field(default_factory=dict)
    patches: dict[str, list[str]] = msgspec.field(default_factory=dict)
    token: int = 0
    owner: str = ""
    at: float = 0.0
    earlier: list[str] = msgspec.field(default_factory=list)
    """As of `Revision`; the one that is left by this migration is among them."""


class SiteRecord(NamedTuple):
    """The rows; one that is not there, or damaged, is None."""

    revision: Revision | None = None
    migrating: Migrating | None = None
    creation: Creation | None = None


Row = TypeVar("Row", bound=msgspec.Struct)


def decode(pairs: Sequence[Sequence[str]]) -> SiteRecord:
    """Return the record that rows of name and JSON text hold."""
    texts = {pair[0]: pair[1] for pair in pairs}
    return SiteRecord(
        _row(texts, "revision", Revision), _row(texts, "migrating", Migrating), _row(texts, "creation", Creation)
    )


def _row(texts: Mapping[str, str], name: str, kind: type[Row]) -> Row | None:
    try:
        return msgspec.json.decode(texts[name], type=kind)
    except (KeyError, msgspec.DecodeError):
        return None
