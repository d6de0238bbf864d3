"""The steps that bring a site to a revision: config, site, migrate, apps, assets, ready.

Each is re-runnable and judged by what the database says by SQL. Never is a database dropped: a site that is neither
absent nor healthy is refused (exit code 81), once for the whole fleet. What only this member lacks (root's password, a
right app list) is left to the others. What an attempt is about to do is in its marker's notes beforehand, so that the
next attempt, also at another revision, knows what earlier ones may have left half done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Plan
from frappe_bootstrap import hooks
from frappe_bootstrap.steps.apps import Apps
from frappe_bootstrap.steps.assets import Assets
from frappe_bootstrap.steps.config import Config
from frappe_bootstrap.steps.creation import Creation
from frappe_bootstrap.steps.migration import Migration
from frappe_bootstrap.steps.mirrors import Mirrors

if TYPE_CHECKING:
    from frappe_bootstrap.work import Work


def plan(work: Work) -> Plan:
    """Return the plan of a site, the same in every member of the fleet."""
    settings = work.settings
    parts = (Config(work), Creation(work), Migration(work), Apps(work), Assets(work), Mirrors(work))
    limits = settings.operation.step_timeouts
    steps = [
        hooks.around(step, work)._replace(timeout=limits.get(step.name, settings.step_timeout))
        for step in (part.step() for part in parts)
    ]
    wanted = [step for step in steps if step.name != "migrate" or settings.migrate]
    return Plan(work.scope, settings.revision, wanted, stale_after=settings.stale_after)


__all__ = ["Apps", "Assets", "Config", "Creation", "Migration", "Mirrors", "plan"]
