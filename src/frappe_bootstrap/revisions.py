"""Which of two revisions is the newer one, and what follows: an image never acts on data that is ahead of it.

Names of revisions say nothing about their order, and neither do versions, which hotfixes do not raise. What orders
them is what they do to data: an image is older if, within one major version, its patches are some of those that the
database was brought to, and none besides. Where each side has patches that the other lacks nothing can be said.
Patches do not tell everything: an app that was dropped, or a document type, leaves no trace in them. So the record
also has a mark of each revision that the database has left behind, and whoever finds its own there is the older one.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from coordinate.types import MarkerState
from frappe_bootstrap import image
from frappe_bootstrap.codes import EXIT_CONFLICT, EXIT_DOWNGRADE, refuse
from frappe_bootstrap.record import Migrating, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from coordinate.steps import StepContext
    from coordinate.types import MarkerView
    from frappe_bootstrap.inspection import State
    from frappe_bootstrap.record import SiteRecord
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.work import Work

KEPT = ("config", "site")
"""Steps that another schema, or a restored backup, does not concern."""
_LONGEST = 64
_SHOWN = 5
_MOST_MARKS = 256
"""About 5 KB of a record. An image that is that far back has fewer patches, too."""


class Image(NamedTuple):
    """What the image brings, as it is recorded."""

    schema: str
    assets: str
    apps: dict[str, str]
    patches: dict[str, list[str]]


@functools.cache
def describe(bench: Path) -> Image:
    """Return what the image of this container brings; it does not change while we run."""
    patches = {app: [_short(app, line) for line in lines] for app, lines in image.patches(bench).items()}
    return Image(image.fingerprint(bench), image.assets_fingerprint(bench), image.versions(bench), patches)


def _short(app: str, patch: str) -> str:
    """Return a patch's name as it is recorded: readable, and never long."""
    name = patch.removeprefix(f"{app}.patches")
    digest = hashlib.sha256(patch.encode()).hexdigest()[:12]
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 13]}~{digest}"


class Order(enum.Enum):
    """How an image stands to what a database was brought to."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    DIVERGED = "diverged"


class Comparison(NamedTuple):
    """The order, and what is only on one side, by app."""

    order: Order
    ours: dict[str, list[str]]
    theirs: dict[str, list[str]]


def compare(ours: Image, apps: dict[str, str], patches: dict[str, list[str]]) -> Comparison:
    """Return how an image stands to recorded versions and patches."""
    orders: set[Order] = set()
    more: dict[str, list[str]] = {}
    less: dict[str, list[str]] = {}
    for app, known in patches.items():
        own = ours.patches.get(app)
        if own is None:
            orders.add(Order.OLDER)
            less[app] = ["the app itself"]
            continue
        extra, lacking = _without(own, known), _without(known, own)
        orders.add(_order(_major(ours.apps.get(app)), _major(apps.get(app)), extra, lacking))
        more |= {app: extra} if extra else {}
        less |= {app: lacking} if lacking else {}
    orders.discard(Order.SAME)
    order = Order.SAME if not orders else orders.pop() if len(orders) == 1 else Order.DIVERGED
    return Comparison(order, more, less)


def _without(patches: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [patch for patch in patches if patch not in known]


def _order(ours: int | None, theirs: int | None, extra: list[str], lacking: list[str]) -> Order:
    """Major versions decide where they differ: each drops patches of earlier ones."""
    if ours is not None and theirs is not None and ours != theirs:
        return Order.NEWER if ours > theirs else Order.OLDER
    if extra and lacking:
        return Order.DIVERGED
    return Order.NEWER if extra else Order.OLDER if lacking else Order.SAME


def _major(version: str | None) -> int | None:
    match = re.match(r"\d+", version or "")
    return int(match[0]) if match else None


class Verdict(enum.Enum):
    """What a healthy site needs, as its database says."""

    CURRENT = "current"
    NEEDED = "needed"
    """It is not known to be at the image's schema."""
    TOLERATED = "tolerated"
    """It is ahead of the image, and an operator wants it to be served all the same; nothing may be changed."""


def mark(revision: str, schema: str) -> str:
    """Return what stands for a revision in the list of those that were left behind: its name and what it is."""
    return hashlib.sha256(f"{revision}\0{schema}".encode()).hexdigest()[:16]


def judge(settings: Settings, state: State) -> Verdict:
    """Return what the site needs.

    Raises:
        StepRefused: the database is ahead of the image, or not comparable (84); the revision's name is used for
            another schema (85).
    """
    ours, record = describe(settings.bench), state.record
    if record.migrating is not None:
        same = record.migrating.schema == ours.schema
        return Verdict.NEEDED if same else _judge_migration(settings, record, record.migrating)
    if record.revision is None:
        return Verdict.NEEDED
    if record.revision.schema == ours.schema:
        return Verdict.CURRENT
    return _judge_revision(settings, state, record.revision)


def _judge_migration(settings: Settings, record: SiteRecord, under_way: Migrating) -> Verdict:
    """Judge an image that comes across a migration to another one."""
    ours = describe(settings.bench)
    found = compare(ours, under_way.apps, under_way.patches)
    # Equal patches do not tell the one before from the one after; what the database was brought to does. The same code
    # under a name of its own is what an operator brings next, to get back from there.
    reached = record.revision
    if reached is not None and (reached.revision, reached.schema) == (settings.revision, ours.schema):
        found = found._replace(order=Order.OLDER)
    left = mark(settings.revision, ours.schema) in under_way.earlier
    return _ahead(settings, found, f"is being migrated to revision {under_way.revision}", left=left)


def _judge_revision(settings: Settings, state: State, reached: Revision) -> Verdict:
    """Judge an image of another schema than the database is at."""
    ours = describe(settings.bench)
    # What an operator has uninstalled since does not have to be in the image.
    patches = {app: names for app, names in reached.patches.items() if app in state.apps}
    found = compare(ours, reached.apps, patches)
    left = mark(settings.revision, ours.schema) in reached.earlier
    verdict = _ahead(settings, found, f"is at revision {reached.revision}", left=left)
    if verdict is Verdict.NEEDED and reached.revision == settings.revision and settings.reuse == "refuse":
        refuse(
            f"site {settings.site} is at revision {settings.revision} with another schema: this name was used for "
            "another image, and REVISION_REUSE=refuse forbids to migrate again; give IMAGE_REV a new value",
            EXIT_CONFLICT,
        )
    return verdict


def _ahead(settings: Settings, found: Comparison, where: str, *, left: bool) -> Verdict:
    """Return what a comparison means; DIVERGED is migrated only by an operator's decision, OLDER never.

    ``left``: the database was at this very image, and was brought to another one; whatever the patches say.
    """
    order = Order.OLDER if left else found.order
    if order in {Order.SAME, Order.NEWER} or (settings.allow_downgrade and order is Order.DIVERGED):
        return Verdict.NEEDED
    if not settings.allow_downgrade:
        _refuse_older(settings, found, where, order)
    return Verdict.TOLERATED


def _refuse_older(settings: Settings, found: Comparison, where: str, order: Order) -> NoReturn:
    how = "is older than that" if order is Order.OLDER else "cannot be compared with that"
    if order is not found.order:
        how += ": the database was at it before (if it is meant to come next, give IMAGE_REV a new value)"
    refuse(
        f"site {settings.site} {where}, and this image ({settings.revision}) {how}. "
        f"Only there: {_shown(found.theirs)}. Only in this image: {_shown(found.ours)}. "
        "Nothing was changed. Use an image that is as new, restore a backup, or set ALLOW_DOWNGRADE=1 at your own risk",
        EXIT_DOWNGRADE,
    )


def _shown(patches: dict[str, list[str]]) -> str:
    """Return patches by app, the newest ones of many."""
    parts = []
    for app, names in patches.items():
        more = f"{len(names) - _SHOWN} more, " if len(names) > _SHOWN else ""
        parts.append(f"{app}: {more}{', '.join(names[-_SHOWN:])}")
    return "; ".join(parts) or "nothing"


def is_undone(settings: Settings, state: State, view: MarkerView) -> bool:
    """Return whether a healthy site's migration is recorded as done and its database says otherwise.

    Whatever has become of the steps after it: one that was given up does not hide that a backup was restored.

    Raises:
        StepRefused: the database is ahead of the image.
    """
    records = [record for record in view.records if record.revision == settings.revision]
    done = {record.step for record in records if record.state is MarkerState.DONE}
    if not settings.migrate or "migrate" not in done:
        return False
    if "apps" in done:
        return judge(settings, state) is Verdict.NEEDED
    # The step apps announces migrations, too, and may have been cut off in one: what was reached before stands.
    reached = state.record.revision
    return reached is None or reached.schema != describe(settings.bench).schema


def check(settings: Settings, state: State) -> None:
    """Return if the site may be changed by this image: before the hook, before it is closed, before the first effect.

    Raises:
        StepRefused: the database is ahead of the image, also where it may be served all the same; or as for `judge`.
    """
    if judge(settings, state) is Verdict.TOLERATED:
        refuse(f"site {settings.site} is ahead of this image; it is never migrated backwards", EXIT_DOWNGRADE)


def begin(work: Work, context: StepContext, state: State) -> None:
    """Say in the database that a migration begins, before its first effect: older images refuse from now on.

    Raises:
        StepRefused: the database is ahead of the image, as it is now.
    """
    check(work.settings, state)
    ours = describe(work.settings.bench)
    value = Migrating(
        revision=context.revision,
        schema=ours.schema,
        apps=ours.apps,
        patches=_of(ours.patches, (*state.apps, *work.wanted)),
        token=context.lease.token,
        owner=context.record.owner,
        at=time.time(),
        earlier=left_behind(state.record, mark(context.revision, ours.schema)),
    )
    work.bench.write_record(context, "migrating", value)


def finish(work: Work, context: StepContext) -> None:
    """Record in the database what it was brought to."""
    ours, state = describe(work.settings.bench), work.healthy(context)
    value = Revision(
        revision=context.revision,
        schema=ours.schema,
        assets=ours.assets,
        apps={app: version for app, version in ours.apps.items() if app in state.apps},
        patches=_of(ours.patches, state.apps),
        token=context.lease.token,
        at=time.time(),
        earlier=left_behind(state.record, mark(context.revision, ours.schema)),
    )
    work.bench.write_record(context, "revision", value)
    work.bench.write_record(context, "migrating", None)


def _of(patches: dict[str, list[str]], apps: tuple[str, ...]) -> dict[str, list[str]]:
    return {app: names for app, names in patches.items() if app in apps}


def left_behind(record: SiteRecord, own: str) -> list[str]:
    """Return the marks of what a database leaves behind that is brought to ``own``: the oldest first, not too many.

    A migration that was never finished is among them: whoever goes on with it has left it behind.
    """
    known: list[str] = []
    for row in (record.revision, record.migrating):
        if row is not None:
            known += [*row.earlier, mark(row.revision, row.schema)]
    return [each for each in dict.fromkeys(known) if each != own][-_MOST_MARKS:]
