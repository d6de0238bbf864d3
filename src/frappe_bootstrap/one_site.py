"""One site's part of a boot: records that the database contradicts are not believed, then the fleet's plan is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Outcome, run
from coordinate.types import MarkerState
from frappe_bootstrap import steps
from frappe_bootstrap.codes import refuse
from frappe_bootstrap.inspection import Kind
from frappe_bootstrap.waiting import bear_outages

if TYPE_CHECKING:
    from coordinate import Coordinator
    from coordinate.types import MarkerRecord
    from frappe_bootstrap.reporting import Reporter
    from frappe_bootstrap.waiting import Stop
    from frappe_bootstrap.work import Work


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
        self._coordinator = coordinator
        self._stop = stop
        self._reporter = reporter
        self.seen = 0
        """Token of the newest leader that this revision knows; what comes with a higher one is another revision's."""

    def bring_about(self, timeout: float, *, believe: bool = False) -> Outcome:
        """Return when the site is at the revision.

        Args:
            timeout: longest wait for others, in seconds.
            believe: a record that says done was made since we started, after its maker had looked.

        Raises:
            CoordinateError: it is not.
        """
        settings = self.work.settings
        leads, revision, patience = settings.operation.leads, settings.revision, settings.wait_timeout
        before = bear_outages(self.markers.view, patience, self._stop, self._reporter.line).claim
        outcome = run(self.plan, self._coordinator, timeout=timeout, observer=self._reporter.event, lead=leads)
        after = bear_outages(self.markers.view, patience, self._stop, self._reporter.line)
        tokens = [record.token for record in after.records if record.revision == revision]
        self.seen = max(0 if before is None else before.token, *tokens, 0)
        if outcome is not Outcome.RAN and not believe:
            if leads:
                steps.Config(self.work).refresh(self._coordinator, timeout)
            self.check_truth()
            steps.Mirrors.of_site(self.work).restore(self._coordinator)
        return outcome

    def records(self) -> tuple[bool, MarkerRecord | None]:
        """Return whether all is done, and the first step that is not.

        Raises:
            BackendUnavailable: no usable answer.
        """
        view = self.markers.view()
        found = [view.find(step.name, self.plan.revision) for step in self.plan.steps]
        undone = [record for record in found if record is None or record.state is not MarkerState.DONE]
        return not undone, next(filter(None, undone), None)

    def is_free(self) -> bool:
        """Return whether nobody holds the site's lease at this instant."""
        return self._coordinator.lease(self.work.scope).holder() is None

    def check_truth(self) -> None:
        """Do not believe a record alone: the database has to say so, too.

        Raises:
            StepRefused: the record says done, the database does not.
            BackendUnavailable: no look succeeded within WAIT_TIMEOUT; that says nothing about the site.
            Interrupted: asked to stop.
        """
        settings = self.work.settings
        state = bear_outages(self.work.bench.state, settings.wait_timeout, self._stop, self._reporter.line)
        if state.kind is not Kind.HEALTHY:
            refuse(
                f"revision {settings.revision} of site {self.name} is recorded as done, but the site is {state}; was a "
                "volume or a database replaced? Restore it, or clear the record (coordinate marker reset)"
            )
        missing = [app for app in self.work.wanted if app not in state.apps]
        if missing:
            names = ", ".join(missing)
            text = f"not installed although this revision is recorded as done: {names}; give IMAGE_REV a new value"
            self._reporter.line(text, level="WARNING")
