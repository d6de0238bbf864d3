"""One boot: wait for the servers, bring the site to the revision with the fleet, do not believe records alone."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.steps import Outcome, run
from frappe_bootstrap import image, steps
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.codes import refuse
from frappe_bootstrap.inspection import Kind
from frappe_bootstrap.waiting import bear_outages, check_container, listen, wait_for_servers
from frappe_bootstrap.work import Work

if TYPE_CHECKING:
    from frappe_bootstrap.reporting import Reporter
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
        work = Work(chosen, bench, reporter.output)
        plan = steps.plan(work)._replace(redact=reporter.redact)
        outcome = run(plan, coordinator, timeout=chosen.boot_timeout, observer=reporter.event)
        if outcome is not Outcome.RAN:
            steps.Config(work).refresh(coordinator, chosen.boot_timeout)
            check_truth(chosen, bench, reporter, stop)
            steps.Mirrors(work).restore(coordinator)
        reporter.line(f"ready ({outcome.value})", elapsed=time.monotonic() - started)
    listen(stop, None)
    if image.unresolved_assets(chosen.sites):
        reporter.line("some names in assets/assets.json have no file in this container", level="WARNING")


def check_truth(chosen: Settings, bench: Bench, reporter: Reporter, stop: Stop) -> None:
    """Do not believe a record alone: the database has to say so, too.

    Raises:
        StepRefused: the record says done, the database does not.
        BackendUnavailable: no look succeeded within WAIT_TIMEOUT; that says nothing about the site.
        Interrupted: asked to stop.
    """
    state = bear_outages(bench.state, chosen.wait_timeout, stop, reporter.line)
    if state.kind is not Kind.HEALTHY:
        reason = (
            f"revision {chosen.revision} of site {chosen.site} is recorded as done, but the site is {state}; was a "
            "volume or a database replaced? Restore it, or clear the record (coordinate marker reset)"
        )
        refuse(reason)
    missing = [app for app in chosen.wanted_apps(image.apps(chosen.bench)) if app not in state.apps]
    if missing:
        names = ", ".join(missing)
        text = f"not installed although this revision is recorded as done: {names}; give IMAGE_REV a new value"
        reporter.line(text, level="WARNING")
