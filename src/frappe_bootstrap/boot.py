"""One boot: wait for the servers, bring every site to the revision with the fleet, do not believe records alone."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.steps import run
from frappe_bootstrap import image, steps
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.one_site import Site
from frappe_bootstrap.reporting import Reporter
from frappe_bootstrap.sites import Sites
from frappe_bootstrap.waiting import check_container, listen, wait_for_servers
from frappe_bootstrap.work import Work

if TYPE_CHECKING:
    from coordinate import Coordinator
    from coordinate.steps import Plan
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.waiting import Stop


def boot(chosen: Settings, stop: Stop, reporter: Reporter) -> None:
    """Return when the revision is ready.

    Raises:
        CoordinateError: it is not; `frappe_bootstrap.cli.exit_code` says which code that is.
    """
    started = time.monotonic()
    for notice in chosen.notices:
        reporter.line(notice, level="WARNING")
    check_container(chosen)
    stop.sleep(chosen.initial_delay)
    bench = Bench(chosen, stop, os.environ)
    with connect(chosen.lease_url, markers_url=chosen.markers_url, ttl=chosen.ttl) as coordinator:
        listen(stop, coordinator)
        wait_for_servers(chosen, bench, coordinator, stop, reporter.line)
        image.ensure_apps_txt(chosen.bench)
        if len(chosen.names) == 1:
            site = Site(Work(chosen, bench, reporter.output), coordinator, stop, reporter)
            outcome = site.bring_about(chosen.boot_timeout).value
        else:
            outcome = _boot_several(chosen, coordinator, stop, reporter)
        reporter.line(f"ready ({outcome})", elapsed=time.monotonic() - started)
    listen(stop, None)
    if image.unresolved_assets(chosen.sites):
        reporter.line("some names in assets/assets.json have no file in this container", level="WARNING")


def _boot_several(chosen: Settings, coordinator: Coordinator, stop: Stop, reporter: Reporter) -> str:
    """Bring several sites about, then what they share; return how it went, for people.

    Raises:
        CoordinateError: of the first site that failed, if READY_POLICY does not allow to go on without it.
    """
    several = []
    for name in chosen.names:
        own = chosen.of(name)
        words = Reporter(reporter.redact, name, chosen.revision)
        several.append(Site(Work(own, Bench(own, stop, os.environ), words.output), coordinator, stop, words))
    failed = Sites(several, coordinator, stop, chosen).run()
    for name, error in failed.items():
        reporter.line(f"site {name} is not ready: {error}", level="ERROR")
    if failed and (chosen.ready_policy == "all" or len(failed) == len(several)):
        raise next(iter(failed.values()))
    shared = steps.shared_plan(several[0].work, tuple(failed))._replace(redact=reporter.redact)
    if any(site.has_forgotten for site in several):
        _forget(shared, coordinator, chosen.boot_timeout)
    run(shared, coordinator, timeout=chosen.boot_timeout, observer=reporter.event)
    steps.Mirrors(several[0].work).restore(coordinator)
    return f"{len(several) - len(failed)} of {len(several)} sites"


def _forget(plan: Plan, coordinator: Coordinator, timeout: float) -> None:
    """Have a plan done again: a site has turned out not to be at the revision, or the name stands for other code."""
    lease, markers = coordinator.lease(plan.scope), coordinator.markers(plan.scope)
    lease.acquire(timeout)
    with lease:
        for step in plan.steps:
            lease.check()
            markers.reset(step.name, plan.revision)
