"""The steps that bring a site to a revision: config, site, migrate, apps, assets, ready.

Each is re-runnable and judged by what the database says by SQL. Never is a database dropped: a site that is neither
absent nor healthy is refused (exit code 81), once for the whole fleet. What only this member lacks (root's password, a
right app list) is left to the others. What an attempt is about to do is in its marker's notes beforehand, so that the
next attempt, also at another revision, knows what earlier ones may have left half done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Budget, Plan
from frappe_bootstrap import hooks, revisions
from frappe_bootstrap.steps.apps import Apps
from frappe_bootstrap.steps.assets import Assets
from frappe_bootstrap.steps.config import Config
from frappe_bootstrap.steps.creation import Creation
from frappe_bootstrap.steps.migration import Migration
from frappe_bootstrap.steps.mirrors import SHARED_SCOPE, Mirrors

if TYPE_CHECKING:
    from coordinate.steps import Step
    from frappe_bootstrap.work import Work


def plan(work: Work) -> Plan:
    """Return the plan of a site, the same in every member of the fleet.

    Assets, and the files that probes look for, belong to all sites together: several share `shared_plan`.
    """
    settings = work.settings
    # Failures of another image of the same name do not count, and its successes are looked at.
    schema = revisions.describe(settings.bench).schema
    changing = [part.step()._replace(fingerprint=schema) for part in (Migration(work), Apps(work))]
    steps = [Config(work).step(), Creation(work).step(), *changing]
    if len(settings.names) == 1:
        steps.append(Assets(work).step())
    return _plan(work, work.scope, [*steps, Mirrors.of_site(work).step()])


def shared_plan(work: Work, failed: tuple[str, ...]) -> Plan:
    """Return the plan of what several sites share, once each of them is ready or given up."""
    return _plan(work, SHARED_SCOPE, [Assets(work).step(), Mirrors(work, failed).step()])


def _plan(work: Work, scope: str, steps: list[Step]) -> Plan:
    settings = work.settings
    limits = settings.operation.step_timeouts
    checks = {"migrate": Migration(work).check}
    wanted = [
        hooks.around(step, work, checks.get(step.name))._replace(timeout=limits.get(step.name, settings.step_timeout))
        for step in steps
        if step.name != "migrate" or settings.migrate
    ]
    # Containers are started again and again: each start would be an attempt, and a backup more of what is half done.
    budget = Budget(backoff=settings.retry_after)
    plan = Plan(scope, settings.revision, wanted, budget, stale_after=settings.stale_after)
    return plan._replace(remedy=f"frappe-bootstrap retry {settings.site} clears it")


__all__ = ["Apps", "Assets", "Config", "Creation", "Migration", "Mirrors", "plan", "shared_plan"]
