"""One boot: wait for the servers, bring every site to the revision with the fleet, do not believe records alone."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.errors import BackendUnavailable, Interrupted, StepFailed, StepRefused, WaitTimeout
from coordinate.steps import run
from frappe_bootstrap import image, steps
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.front import Front
from frappe_bootstrap.one_site import Site
from frappe_bootstrap.operation import STEPS
from frappe_bootstrap.owning import own
from frappe_bootstrap.reporting import Reporter
from frappe_bootstrap.sites import Sites
from frappe_bootstrap.steps.mirrors import SHARED_SCOPE
from frappe_bootstrap.waiting import Ending, check_container, listen, wait_for_servers
from frappe_bootstrap.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate import Coordinator
    from coordinate.errors import CoordinateError
    from coordinate.steps import Event, Plan
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
    with connect(chosen.lease_url, markers_url=chosen.markers_url, ttl=chosen.ttl) as coordinator, ExitStack() as stack:
        ending = Ending(stop, coordinator, chosen.operation)
        front = Front(chosen, coordinator, STEPS)
        # Left before the command starts: the port is the command's then.
        stack.enter_context(front.room(reporter.line))

        def tell(text: str) -> None:
            front.say(text)
            reporter.line(text)

        def follow(event: Event) -> None:
            ending.event(event)
            front.event(event)

        wait_for_servers(chosen, bench, coordinator, stop, tell)
        front.state = "waiting"
        reporter.on_event = follow
        if chosen.operation.leads:
            image.ensure_apps_txt(chosen.bench)
        several = [_site(chosen, name, coordinator, stop, reporter) for name in chosen.names]
        try:
            if len(several) == 1:
                outcome = several[0].bring_about(chosen.boot_timeout).value
            else:
                outcome = _boot_several(several, coordinator, stop, reporter)
        except (StepFailed, StepRefused) as error:
            _show(front, reporter.redact(str(error)), chosen, stop)
            raise
        if chosen.operation.leads:
            scope = several[0].work.scope if len(several) == 1 else SHARED_SCOPE
            steps.Assets(several[0].work).refresh(coordinator, scope, chosen.boot_timeout)
        reporter.line(f"ready ({outcome})", elapsed=time.monotonic() - started)
    listen(stop)
    if image.unresolved_assets(chosen.sites):
        reporter.line("some names in assets/assets.json have no file in this container", level="WARNING")
    return {site.work.scope: site.seen for site in several if site.seen}


def _show(front: Front, reason: str, chosen: Settings, stop: Stop) -> None:
    """Let people see why this container ends; a signal ends that, and does not change the exit code."""
    # The last lines are shown with their step.
    front.fail(reason.partition("\n")[0].removesuffix(" Last lines:"))
    if chosen.operation.waiting_room_port or chosen.operation.health_port:
        with suppress(Interrupted):
            stop.sleep(chosen.operation.failure_page)


def _site(chosen: Settings, name: str, coordinator: Coordinator, stop: Stop, reporter: Reporter) -> Site:
    own = chosen.of(name)
    words = Reporter(reporter.redact, name, chosen.revision)
    words.on_event = reporter.on_event
    return Site(Work(own, Bench(own, stop, os.environ), words.output), coordinator, stop, words)


def _boot_several(several: Sequence[Site], coordinator: Coordinator, stop: Stop, reporter: Reporter) -> str:
    """Bring several sites about, then what they share; return how it went, for people.

    Raises:
        CoordinateError: of the first site that failed, if READY_POLICY does not allow to go on without it.
    """
    work = several[0].work
    chosen = work.settings
    failed = Sites(several, coordinator, stop, chosen).run() if chosen.operation.leads else _follow(several)
    for name, error in failed.items():
        reporter.line(f"site {name} is not ready: {error}", level="ERROR")
    if failed and (chosen.ready_policy == "all" or len(failed) == len(several)):
        raise next(iter(failed.values()))
    shared = steps.shared_plan(work, tuple(failed))._replace(redact=reporter.redact)
    if chosen.operation.leads and any(site.has_forgotten for site in several):
        _forget(work, shared, coordinator)
    run(shared, coordinator, timeout=chosen.boot_timeout, observer=reporter.event, lead=chosen.operation.leads)
    steps.Mirrors(work).restore(coordinator)
    return f"{len(several) - len(failed)} of {len(several)} sites"


def _follow(several: Sequence[Site]) -> dict[str, CoordinateError]:
    """Wait until others have brought each site about, without ever leading; all of them within BOOT_TIMEOUT."""
    failed: dict[str, CoordinateError] = {}
    ends_at = time.monotonic() + several[0].work.settings.boot_timeout
    for site in several:
        try:
            site.bring_about(max(0.0, ends_at - time.monotonic()))
        except (BackendUnavailable, StepFailed, StepRefused, WaitTimeout) as error:
            failed[site.name] = error
    return failed


def _forget(work: Work, plan: Plan, coordinator: Coordinator) -> None:
    """Have a plan done again: a site has turned out not to be at the revision, or the name stands for other code."""
    markers = coordinator.markers(plan.scope)
    with own(work, coordinator, work.settings.boot_timeout, scope=plan.scope) as lease:
        for step in plan.steps:
            lease.check()
            markers.reset(step.name, plan.revision)
