"""One site's part of a boot: records that the database contradicts are not believed, then the fleet's plan is run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coordinate.errors import WaitTimeout
from coordinate.steps import Outcome, run
from coordinate.types import MarkerState
from frappe_bootstrap import revisions, steps
from frappe_bootstrap.codes import refuse
from frappe_bootstrap.inspection import Kind, State
from frappe_bootstrap.maintenance import Maintenance
from frappe_bootstrap.owning import floor, own
from frappe_bootstrap.steps.creation import rotate
from frappe_bootstrap.waiting import bear_outages

if TYPE_CHECKING:
    from coordinate import Coordinator
    from coordinate.types import MarkerRecord, MarkerView
    from frappe_bootstrap.reporting import Reporter
    from frappe_bootstrap.waiting import Stop
    from frappe_bootstrap.work import Work

_LOOK_EVERY = 1.0


class Site:
    """A site of this container.

    Args:
        work: on the site.
        coordinator: leases and markers.
        stop: a request to stop.
        reporter: of the site.
    """

    def __init__(self, work: Work, coordinator: Coordinator, stop: Stop, reporter: Reporter) -> None:
        self.work = work
        self.name = work.settings.site
        self.plan = steps.plan(work)._replace(redact=reporter.redact)
        self.markers = coordinator.markers(work.scope)
        self.has_forgotten = False
        """Whether records were taken back because the database contradicts them."""
        self._coordinator = coordinator
        self._stop = stop
        self._reporter = reporter
        self._blocking = True
        self._state = State(Kind.ABSENT)
        self.seen = 0
        """Token of the newest leader that this revision knows; what comes with a higher one is another revision's."""

    def bring_about(self, timeout: float, *, believe: bool = False, blocking: bool = True) -> Outcome:
        """Return when the site is at the revision.

        Args:
            timeout: longest wait for others, in seconds.
            believe: a record that says done was made since we started, after its maker had looked.
            blocking: False: never stand in line for the site; a claim of another lease store is waited out for its ttl.

        Raises:
            Contended: it is somebody else's turn, and we were told not to wait for that.
            CoordinateError: it is not.
        """
        limit, log = self.work.settings.wait_timeout, self._reporter.line
        before = bear_outages(self.markers.view, limit, self._stop, log).claim
        self._blocking = blocking
        outcome = self._bring_about(timeout, believe=believe)
        after = bear_outages(self.markers.view, limit, self._stop, log)
        tokens = [record.token for record in after.records if record.revision == self.plan.revision]
        self.seen = max(0 if before is None else before.token, *tokens, 0)
        return outcome

    def _bring_about(self, timeout: float, *, believe: bool) -> Outcome:
        leads = self.work.settings.operation.leads
        first = Outcome.ALREADY_DONE
        while True:
            if not believe and not self._may_run(timeout):
                return first
            outcome = self._run(timeout, leads=leads)
            if believe or outcome is Outcome.RAN:
                return outcome
            if outcome is Outcome.ALREADY_DONE:
                break
            # Others have done it, perhaps with another image of that name: the database tells.
            first = outcome
        if leads:
            steps.Config(self.work).refresh(self._coordinator, timeout, blocking=self._blocking)
            self._tidy(timeout)
        steps.Mirrors.of_site(self.work).restore(self._coordinator)
        return first

    def _run(self, timeout: float, *, leads: bool) -> Outcome:
        """Bring the plan about with the fleet."""
        return run(
            self.plan,
            self._coordinator,
            timeout=timeout,
            observer=self._reporter.event,
            lead=leads,
            blocking=self._blocking,
            floor=floor(self.work),
        )

    def records(self) -> tuple[bool, MarkerRecord | None]:
        """Return whether all is done, and the first step that is not.

        Raises:
            BackendUnavailable: no usable answer.
        """
        return self._done(self.markers.view())

    def _done(self, view: MarkerView) -> tuple[bool, MarkerRecord | None]:
        found = [view.find(step.name, self.plan.revision) for step in self.plan.steps]
        undone = [record for record in found if record is None or record.state is not MarkerState.DONE]
        return not undone, next(filter(None, undone), None)

    def is_restored(self) -> bool:
        """Return whether the migration is recorded as done, and the database of the healthy site says otherwise.

        Raises:
            StepRefused: the database is ahead of the image.
            BackendUnavailable: no look succeeded within WAIT_TIMEOUT.
            Interrupted: asked to stop.
        """
        view = self.markers.view()
        record = view.find("migrate", self.plan.revision)
        if record is None or record.state is not MarkerState.DONE:
            return False
        state = self._look()
        return state.kind is Kind.HEALTHY and revisions.is_undone(self.work.settings, state, view)

    def allows(self, record: MarkerRecord, born: float) -> bool:
        """Return whether a process that started at ``born`` (wall clock) may expect another attempt at a step."""
        fingerprints = {step.name: step.fingerprint for step in self.plan.steps}
        return fingerprints[record.step] != record.fingerprint or self.plan.budget.allows(record, born)

    def is_of_this_schema(self) -> bool:
        """Return whether what is recorded was done by an image with our schema, not by another one of that name."""
        view = self.markers.view()
        found = {step: view.find(step.name, self.plan.revision) for step in self.plan.steps}
        return all(record is not None and record.fingerprint == step.fingerprint for step, record in found.items())

    def is_free(self) -> bool:
        """Return whether nobody holds the site's lease at this instant."""
        return self._coordinator.lease(self.work.scope).holder() is None

    def _may_run(self, timeout: float) -> bool:
        """Look at the database, and do not believe records that it contradicts. False: serve, and change nothing.

        Raises:
            StepRefused: the database is ahead, or the records say done and the site is not there.
            BackendUnavailable: no look succeeded within WAIT_TIMEOUT; that says nothing about the site.
            Interrupted: asked to stop.
        """
        settings = self.work.settings
        # Before the database: what is recorded as done has to be there, what is about to be recorded has not.
        view = self.markers.view()
        done, _ = self._done(view)
        state = self._state = self._look()
        if state.kind is not Kind.HEALTHY:
            if done:
                refuse(
                    f"revision {settings.revision} of site {self.name} is recorded as done, but the site is {state}; "
                    "was a volume or a database replaced? Restore it, or clear the records: "
                    f"frappe-bootstrap retry --done {self.name}"
                )
            return True
        verdict = revisions.judge(settings, state)
        if verdict is revisions.Verdict.TOLERATED:
            text = "the database is ahead of this image; served without any change (ALLOW_DOWNGRADE=1)"
            self._reporter.line(text, level="WARNING")
            return False
        if revisions.is_undone(settings, state, view):
            if settings.operation.leads:
                self._forget(timeout)
            else:
                self._await_another(timeout)
        elif done:
            self._warn_of_missing(state)
        return True

    def _tidy(self, timeout: float) -> None:
        """Do for a site that is at the revision what no step does any more.

        A password that was rotated since is written into its config. It is opened again if somebody closed it, to
        bring another revision about, and died before anything was changed.
        """
        maintenance = Maintenance(self.work)
        if not self._state.rotated and maintenance.journal() is None:
            return
        with own(self.work, self._coordinator, timeout, blocking=self._blocking) as lease:
            state = self._look()
            if state.kind is not Kind.HEALTHY:
                refuse(f"site {self.name} was at revision {self.work.settings.revision}, and is {state} now")
            if state.rotated:
                rotate(self.work, lease.check)
            # Raises if another revision has begun to change it.
            current = revisions.judge(self.work.settings, state) is revisions.Verdict.CURRENT
            if current and maintenance.journal() is not None:
                maintenance.restore_under(lease)
                self._reporter.line("opened again: who had closed it died before it changed anything", level="WARNING")

    def _look(self) -> State:
        limit = self.work.settings.wait_timeout
        return bear_outages(self.work.bench.state, limit, self._stop, self._reporter.line)

    def _forget(self, timeout: float) -> None:
        """Take back records that the database contradicts: it was restored, or the name stands for another schema."""
        with own(self.work, self._coordinator, timeout, blocking=self._blocking) as lease:
            state = self._look()
            verdict = revisions.judge(self.work.settings, state) if state.kind is Kind.HEALTHY else None
            undone = revisions.is_undone(self.work.settings, state, self.markers.view())
            if verdict is not revisions.Verdict.NEEDED or not undone:
                return
            text = "recorded as done, but the database says otherwise (restored, or another image of that name): again"
            self._reporter.line(text, level="WARNING")
            self.has_forgotten = True
            for mirrors in (steps.Mirrors(self.work), steps.Mirrors.of_site(self.work)):
                mirrors.remove()
            for step in self.plan.steps:
                if step.name not in revisions.KEPT:
                    lease.check()
                    self.markers.reset(step.name, self.plan.revision)

    def _await_another(self, timeout: float) -> None:
        """Wait until one that may lead has taken such records back.

        Raises:
            WaitTimeout: nobody did.
        """
        ends_at = time.monotonic() + timeout
        while self._is_undone():
            if time.monotonic() >= ends_at:
                message = f"site {self.name} has to be migrated again, and nobody who may lead did it"
                raise WaitTimeout(message)
            self._stop.sleep(_LOOK_EVERY)

    def _is_undone(self) -> bool:
        view = self.markers.view()
        return revisions.is_undone(self.work.settings, self._look(), view)

    def _warn_of_missing(self, state: State) -> None:
        missing = [app for app in self.work.wanted if app not in state.apps]
        if missing:
            names = ", ".join(missing)
            text = f"not installed although this revision is recorded as done: {names}; give IMAGE_REV a new value"
            self._reporter.line(text, level="WARNING")
