"""Maintenance of one site: flag and journal are one write, so whoever comes later knows what to restore.

The journal is a key of the site's own config file, beside the flags that it is about: there is no instant at which
one of them is there without the other, and it is found after a kill, by another revision, on another host, without a
database. Switching on while it is there keeps the older values. What the flag cannot do: it is one for all revisions,
so nothing here keeps an older one from being served after the flag is restored.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from frappe_bootstrap import config_files
from frappe_bootstrap.codes import EXIT_UNSETTLED, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate import Lease
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work

JOURNAL = "frappe_bootstrap_maintenance"
KNOWN = "known"
"""Every web process has noticed."""
CHANGED = "changed"
"""The site's data may have been changed: to open it again undoes nothing."""
FLAGS = ("maintenance_mode", "pause_scheduler")


class Maintenance:
    """The maintenance of a site while it is changed.

    Args:
        work: on the site.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def journal(self) -> dict[str, object] | None:
        """Return what is to be restored, or None if the site is not in maintenance of ours."""
        settings = self._work.settings
        return _journal(config_files.read(settings.sites / settings.site / "site_config.json"))

    def token(self) -> int:
        """Return the token of the leader that has closed the site, 0 if it is open: no lower one may open it."""
        return _token(_journal(config_files.read_or_empty(self._work.site_config)))

    def on(self, context: StepContext) -> None:
        """Close the site and pause its scheduler; return when every web process must have noticed.

        Raises:
            StepRefused: a newer leader has taken the maintenance over.
            LeaseLost, Interrupted: in the middle; the journal stays.
        """
        self._edit(context.lease, context.check, lambda before: self._closed(before, context))
        context.note(maintenance=json.dumps((self.journal() or {}).get("before", {})))
        if self.has(KNOWN):
            return
        wait = self._work.settings.maintenance_wait
        if wait:
            self._work.log(context.record.step, f"in maintenance; every web process knows it in {wait:g} s")
            self._work.bench.sleep(context, wait)
        # In the journal, so that the next attempt does not wait again, and that of another upgrade does.
        self.mark(context, KNOWN)

    def has(self, mark: str) -> bool:
        """Return whether this maintenance, begun by whomever, has got that far."""
        return bool((self.journal() or {}).get(mark))

    def mark(self, context: StepContext, mark: str) -> None:
        """Write into the journal how far this maintenance has got; nothing to do if there is none."""

        def marked(before: dict[str, object]) -> dict[str, object]:
            """Add the mark to the journal, if there is one."""
            journal = _journal(before)
            return before if journal is None else {**before, JOURNAL: {**journal, mark: True}}

        self._edit(context.lease, context.check, marked)

    def restore(self, context: StepContext) -> None:
        """Put both flags back to what they were; nothing to do if the site is not in maintenance of ours."""
        if self.journal() is None:
            return
        self._edit(context.lease, context.check, _opened)
        context.note(maintenance="")

    def restore_under(self, lease: Lease) -> None:
        """Do the same outside of a step, holding the site's lease."""
        self._edit(lease, lease.check, _opened)

    def _closed(self, before: dict[str, object], context: StepContext) -> dict[str, object]:
        journal = _journal(before) or {
            "before": {flag: before[flag] for flag in FLAGS if flag in before},
            "since": time.time(),
            "revision": context.revision,
        }
        return {**before, **dict.fromkeys(FLAGS, 1), JOURNAL: {**journal, "token": context.lease.token}}

    def _edit(self, lease: Lease, check: Callable[[], object], change: config_files.Change) -> None:
        def checked(before: dict[str, object]) -> dict[str, object]:
            """Check under the file's lock: a newer leader's token is in the journal."""
            check()
            if _token(_journal(before)) > lease.token:
                refuse("a newer leader has taken the site's maintenance over", EXIT_UNSETTLED)
            return change(before)

        config_files.edit_site(self._work.settings, checked)


def _journal(config: dict[str, object]) -> dict[str, object] | None:
    found = config.get(JOURNAL)
    return found if isinstance(found, dict) else None


def _token(journal: dict[str, object] | None) -> int:
    found = (journal or {}).get("token", 0)
    return found if isinstance(found, int) else 0


def _opened(before: dict[str, object]) -> dict[str, object]:
    old = (_journal(before) or {}).get("before")
    kept = {key: value for key, value in before.items() if key not in {JOURNAL, *FLAGS}}
    return {**kept, **(old if isinstance(old, dict) else {})}
