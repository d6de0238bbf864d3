"""Closing a site before it is changed, and opening it again: what UPGRADE_MODE says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.errors import CoordinateError, LeaseLost, StaleToken
from frappe_bootstrap.codes import EXIT_UPGRADE, refuse
from frappe_bootstrap.drain import drain
from frappe_bootstrap.maintenance import CHANGED, Maintenance

if TYPE_CHECKING:
    from coordinate.steps import StepContext
    from frappe_bootstrap.inspection import State
    from frappe_bootstrap.work import Work


def check(work: Work) -> None:
    """Refuse to change a site that may be served, if UPGRADE_MODE=refuse says so.

    Raises:
        StepRefused: it does.
    """
    if work.settings.upgrade_mode == "refuse" and not work.created:
        refuse(f"site {work.settings.site} would have to be migrated, and UPGRADE_MODE=refuse forbids it", EXIT_UPGRADE)


def close(work: Work, context: StepContext) -> None:
    """Return when the site may be changed: closed, its scheduler paused, its jobs done.

    Whoever fails here has changed nothing and opens the site again, unless an earlier attempt or step has changed it.

    Raises:
        StepRefused: UPGRADE_MODE=refuse, and the site may be served.
        CommandFailed, Interrupted, LeaseLost: it is not closed.
    """
    check(work)
    if work.created or work.settings.upgrade_mode == "live":
        _note_change(context)
        return
    maintenance = Maintenance(work)
    try:
        maintenance.on(context)
        drain(work, context)
    except (LeaseLost, StaleToken):
        raise  # not ours any more: the next leader finds the journal
    except CoordinateError:
        if not maintenance.has(CHANGED):
            maintenance.restore(context)
            # Carried on from an attempt before the journal, which knows better.
            context.note(**{CHANGED: ""})
        raise
    maintenance.mark(context, CHANGED)
    _note_change(context)


def _note_change(context: StepContext) -> None:
    """Record that there may be effects from here on: an attempt that ended before has changed nothing for anybody."""
    context.note(**{CHANGED: "1"})


def drop_stale_notes(work: Work, context: StepContext, state: State) -> None:
    """Take back what earlier attempts have noted, where neither the journal nor the database knows of it any more.

    A backup was restored and the site was opened since: the older revision that is served is not to be kept from it.
    """
    if state.record.migrating is not None or Maintenance(work).journal() is not None:
        return
    notes = work.notes(context)
    if stale := {key: "" for key in (CHANGED, "maintenance") if notes.get(key)}:
        context.note(**stale)


def reopen(work: Work, context: StepContext) -> None:
    """Put maintenance and scheduler back to what they were, also what a dead leader or an older revision has left."""
    Maintenance(work).restore(context)
