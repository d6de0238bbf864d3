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
from frappe_bootstrap.waiting import Ending, bear_outages, check_container, listen, wait_for_servers
from frappe_bootstrap.work import Work

if TYPE_CHECKING:
    from coordinate.steps import Event
    from frappe_bootstrap.reporting import Reporter
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.waiting import Stop


def boot(chosen: Settings, stop: Stop, reporter: Reporter) -> dict[str, int]:
    """Return when the revision is ready: by scope, the token of the newest leader that has been at work until then.

    Raises:
        CoordinateError: it is not; `frappe_bootstrap.codes.exit_code` says which code that is.
    """
    started = time.monotonic()
    for notice in chosen.notices:
        reporter.line(notice, level="WARNING")
    check_container(chosen)
    stop.sleep(chosen.initial_delay)
    bench = Bench(chosen, stop, os.environ)
    with connect(chosen.lease_url, markers_url=chosen.markers_url, ttl=chosen.ttl) as coordinator:
        ending = Ending(stop, coordinator, chosen.operation)
        wait_for_servers(chosen, bench, coordinator, stop, reporter.line)
        work = Work(chosen, bench, reporter.output)
        plan = steps.plan(work)._replace(redact=reporter.redact)
        markers = coordinator.markers(work.scope)
        before = bear_outages(markers.view, chosen.wait_timeout, stop, reporter.line)

        def observe(event: Event) -> None:
            """Log what happens, and let a signal know whether a step runs."""
            reporter.event(event)
            ending.event(event)

        outcome = run(
            plan,
            coordinator,
            timeout=chosen.boot_timeout,
            observer=observe,
            lead=chosen.operation.leads,
        )
        after = bear_outages(markers.view, chosen.wait_timeout, stop, reporter.line)
        tokens = [record.token for record in after.records if record.revision == chosen.revision]
        seen = {work.scope: max(before.claim.token if before.claim is not None else 0, *tokens, 0)}
        if outcome is not Outcome.RAN:
            if chosen.operation.leads:
                steps.Config(work).refresh(coordinator, chosen.boot_timeout)
                steps.Assets(work).refresh(coordinator, chosen.boot_timeout)
            check_truth(chosen, bench, reporter, stop)
            steps.Mirrors(work).restore(coordinator)
        reporter.line(f"ready ({outcome.value})", elapsed=time.monotonic() - started)
    listen(stop)
    if image.unresolved_assets(chosen.sites):
        reporter.line("some names in assets/assets.json have no file in this container", level="WARNING")
    return seen


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
