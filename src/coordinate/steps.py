"""The steps engine: a fleet runs a plan once, whoever dies on the way.

Each member calls `run` with the same plan. One becomes the leader and does what is not done; the others wait, notice
at once, and take over if it dies. Promised: of two leaders at most one can record anything, a step recorded as done
is not begun again for its revision, a failure is known to everybody, no wait is without end. Not promised: that a
step's effects happen once. A step must be re-runnable; ``settled`` and ``verify`` are the places to make sure.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING

from coordinate._names import check_name, check_revision
from coordinate._plan import Budget, Plan, Step
from coordinate.errors import (
    AcquireTimeout,
    BackendUnavailable,
    Contended,
    LeaseLost,
    StaleToken,
    StepDeclined,
    StepFailed,
    WaitTimeout,
)
from coordinate.events import Event
from coordinate.types import MarkerState, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate._contest import Contest
    from coordinate._leading import StepContext
    from coordinate.coordinator import Coordinator
    from coordinate.lease import Lease
    from coordinate.marker import Markers
    from coordinate.types import MarkerRecord, MarkerView

log = logging.getLogger("coordinate")

OUTAGE = 60.0
"""Seconds of unbroken unavailability of a store after which a member gives up."""
RETRY_UNAVAILABLE = 0.25
LOOK_EVERY = 1.0
"""Seconds between looks of a member that does not stand for the lease: the net under the watch."""

__all__ = ["Budget", "Event", "Outcome", "Plan", "Step", "StepContext", "run", "run_function"]


class Outcome(enum.Enum):
    """How a plan came to be done."""

    RAN = "ran"
    WAITED = "waited"
    ALREADY_DONE = "already done"


def run(
    plan: Plan,
    coordinator: Coordinator,
    *,
    timeout: float = 3600.0,
    observer: Callable[[Event], object] | None = None,
    lead: bool = True,
    blocking: bool = True,
    floor: int = 0,
) -> Outcome:
    """Bring the plan about together with the rest of the fleet and return when all of it is done.

    Whoever has several plans does not want to stand in line for one of them while another is free. With
    ``blocking=False`` a plan is led to its end, found done, or left at once with `Contended`; then the next one's turn
    comes, and later this one's again. A step of our own takes its time all the same, and a store that gives no usable
    answer is borne as always: that says nothing about others.

    Args:
        plan: the same in every member.
        coordinator: leases and markers.
        timeout: longest time in seconds to wait for others; a step of our own is bounded by its own timeout.
        observer: called with each `Event`; must not block.
        lead: False: only wait for the others; the lease is never asked for.
        blocking: False: never wait for others, nor for another attempt after a failure of our own. Only a leader of
            another lease store, which nothing but its claim tells of, is waited out: for the claim's ttl, in the lease.
        floor: tokens are greater than this, and than any that was claimed: where else a token may have been left.

    Raises:
        Contended: told not to wait, and it is somebody else's turn; no failure. Come again after its ``retry_after``.
        StepFailed: the failure budget of a step is spent, or it was refused for good, here or elsewhere.
        StepDeclined: this member cannot do a step, and nobody else did.
        WaitTimeout: not done within ``timeout`` although somebody leads.
        BackendUnavailable: a store gave no usable answer until the end of the wait.
        Interrupted: a signal asked this process to stop; its step was stopped first.

    Example:
        >>> from coordinate import connect
        >>> from coordinate.errors import Contended
        >>> with connect("memory://") as coordinator, coordinator.lease("shop") as somebody_else:
        ...     for scope in ("shop", "wiki"):
        ...         plan = Plan(scope, "v2", [Step("migrate", lambda context: None)])
        ...         try:
        ...             print(scope, run(plan, coordinator, blocking=False).value)
        ...         except Contended as contended:
        ...             print(scope, "is held" if contended.holder else "is not to be had")
        shop is held
        wiki ran
    """
    check_revision(plan.revision)
    for step in plan.steps:
        check_name(step.name, "step")
    member = Member(plan, coordinator, timeout, observer or _ignore)
    member.leads, member.blocking, member.floor = lead, blocking, floor
    return member.run()


class Member:
    """One process's part in a plan."""

    def __init__(
        self, plan: Plan, coordinator: Coordinator, timeout: float, observer: Callable[[Event], object]
    ) -> None:
        self.plan = plan
        self.coordinator = coordinator
        self.observer = observer
        self.markers: Markers = coordinator.markers(plan.scope)
        self._timeout = timeout
        self._clock = coordinator.clock
        self._born_wall = self._clock.wall()
        self.ends_at = self._clock.now() + timeout
        self._not_before = 0.0
        self.floor = 0
        self._waited_for = ""
        self.unled = False
        self.leads = self.blocking = True
        self._dark_since: float | None = None
        self._declined: dict[str, StepDeclined] = {}
        self._seen: MarkerView | None = None
        self._still_since = 0.0

    def run(self) -> Outcome:
        """See `run` of the module."""
        view = self._view_or_none()
        if view is not None and self.is_done(view):
            return Outcome.ALREADY_DONE
        while True:
            lease = self._campaign()
            if lease is None:
                return Outcome.WAITED
            outcome = self._lead(lease)
            if outcome is not None:
                return outcome

    def tell(self, kind: str, step: str = "", token: int = 0, text: str = "", elapsed: float = 0.0) -> None:
        """Report an event."""
        self.observer(Event(kind, step, token, text, elapsed))

    # Reading

    def is_done(self, view: MarkerView) -> bool:
        """Return whether every step of the plan is done; raise if one has failed for good."""
        records = [(step, view.find(step.name, self.plan.revision)) for step in self.plan.steps]
        for step, record in records:
            if record is not None and record.state is not MarkerState.DONE and not self.may_begin(step, record):
                raise given_up(record, self.plan.remedy)
        return all(record is not None and record.state is MarkerState.DONE for _, record in records)

    def may_begin(self, step: Step, record: MarkerRecord) -> bool:
        """Return whether the fleet's budget allows another attempt by this process."""
        return record.fingerprint != step.fingerprint or self.plan.budget.allows(record, self._born_wall)

    def decline(self, step: Step, declined: StepDeclined) -> None:
        """Remember that another member has to do a step; raise at once if we do not wait for one."""
        if declined.patience <= 0 or not self.blocking:
            raise declined
        self._declined[step.name] = declined
        self._still_since = self._clock.now()

    def _view_or_none(self) -> MarkerView | None:
        try:
            view = self.markers.view()
        except BackendUnavailable as error:
            self._note_outage(error)
            return None
        self._dark_since = None
        return view

    def _note_outage(self, error: BackendUnavailable) -> None:
        """Bear an unavailable store for a while; it is never taken for somebody else's leadership."""
        now = self._clock.now()
        if self._dark_since is None:
            self._dark_since = now
            self.tell("unavailable", text=str(error))
        if now - self._dark_since >= OUTAGE or now >= self.ends_at:
            raise error
        self._not_before = now + RETRY_UNAVAILABLE

    # Campaigning: one wait that ends in done, failed, mine, or out of time

    def _campaign(self) -> Lease | None:
        """Return the lease, or None when the others have done it all."""
        lease = self.coordinator.lease(self.plan.scope)
        also = tuple(
            (backend, self.markers.topic) for backend in {self.coordinator.backend, self.coordinator.marker_backend}
        )
        contest = lease.contest(self.ends_at - self._clock.now(), floor=self.floor, also=also)
        with contest:
            while True:
                view = self._view_or_none()
                if view is not None and self.is_done(view):
                    return None
                self._bear_standstill(view)
                may_stand = view is not None and self._may_stand(view)
                contest.floor = self.floor
                contest.unled = self.unled = view is not None and self._is_unled(view)
                if may_stand and contest.attempt():
                    return lease
                self._sleep(contest, view)

    def _is_unled(self, view: MarkerView) -> bool:
        """Return whether nobody ever led here, as a marker store knows that did not lose its memory with the leases."""
        apart = self.coordinator.marker_backend is not self.coordinator.backend
        return apart and view.claim is None and not view.records

    def _may_stand(self, view: MarkerView) -> bool:
        """Return whether this member may ask for the lease now."""
        if self._clock.now() < self._not_before:
            return False
        if not self.leads or self._waits_for_another(view):
            # Not even in line for the lease: the turn would be lost on us.
            self._not_before = self._clock.now() + LOOK_EVERY
            return False
        claim = view.claim
        if claim is not None:
            self.floor = max(self.floor, claim.token)
        return True

    def _waits_for_another(self, view: MarkerView | None) -> StepDeclined | None:
        """Return why this member cannot lead now: it has declined a step that is not done yet."""
        for name, declined in self._declined.items():
            record = view.find(name, self.plan.revision) if view is not None else None
            if record is None or record.state is not MarkerState.DONE:
                return declined
        return None

    def _bear_standstill(self, view: MarkerView | None) -> None:
        """Having declined, end with the reason when nobody has been at work for as long as it said."""
        declined = self._waits_for_another(view)
        if declined is None:
            return
        now = self._clock.now()
        revision = self.plan.revision
        at_work = view is not None and any(
            record.state is MarkerState.IN_PROGRESS and record.revision == revision for record in view.records
        )
        if at_work or view != self._seen:
            self._seen, self._still_since = view, now
        if now - self._still_since >= declined.patience:
            raise declined

    def _leave_the_line(self, contest: Contest, view: MarkerView | None) -> None:
        """Raise if others are in the way and we are not to wait for them; an outage is nobody's turn, and is borne."""
        obstacle = contest.obstacle if self.leads else "this member only waits for others"
        if self.blocking or view is None or not obstacle:
            return
        revision = self.plan.revision
        begun = {record.token: record.started for record in view.records if record.state is MarkerState.IN_PROGRESS}
        message = f"{self.plan.scope}: revision {revision} is not done and not ours to do now: {obstacle}"
        raise Contended(message, contest.holder, begun[max(begun)] if begun else 0.0)

    def _sleep(self, contest: Contest, view: MarkerView | None) -> None:
        self._leave_the_line(contest, view)
        contest.not_before = self._not_before
        leader = str(view.claim.owner) if view is not None and view.claim is not None else "somebody"
        if leader != self._waited_for:
            self._waited_for = leader
            self.tell("waiting", text=f"last known leader: {leader}")
        try:
            contest.sleep()
        except AcquireTimeout as error:
            if declined := self._waits_for_another(view):
                raise declined from error
            message = f"{self.plan.scope}: revision {self.plan.revision} not done within {self._timeout:g} s: {error}"
            raise WaitTimeout(message) from error

    # Leading

    def _lead(self, lease: Lease) -> Outcome | None:
        """Do what is not done. None: it was taken from us or failed for now; campaign again."""
        from coordinate._leading import Leader  # noqa: PLC0415 -- leading builds on this module

        self._waited_for = ""
        try:
            with lease:
                return Leader(self, lease).run()
        except LeaseLost as lost:
            self.tell("lost", token=lease.grant.token if lost.loss else 0, text=str(lost))
        except StaleToken as stale:
            self.floor = max(self.floor, stale.floor)
            self.tell("stale", text=str(stale))
        except BackendUnavailable as error:
            self._note_outage(error)
        except TryAgain as again:
            pause = max(self.plan.budget.pause, again.pause)
            self._not_before = self._clock.now() + pause
            self.tell("waiting", text=str(again))
            if not self.blocking:
                message = f"{self.plan.scope}: {again}"
                raise Contended(message, retry_after=pause) from again
        return None


class TryAgain(Exception):
    """An attempt failed and the budget is not spent: stand back, let others try, campaign again."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def given_up(record: MarkerRecord, remedy: str) -> StepFailed:
    """Return the error that every member ends with when a step is given up."""
    step, tail = f"step {record.step} of {record.revision}", f"\n{record.detail}" if record.detail else ""
    if record.verdict is Verdict.REFUSED:
        message = f"{step} was refused, nobody tries again ({remedy}):{tail}"
    else:
        message = (
            f"{step} failed {record.failures} times and crashed {record.crashes} times; "
            f"giving up ({remedy}). Last lines:{tail}"
        )
    return StepFailed(message, record)


def run_function(
    coordinator: Coordinator, step: str, revision: str, function: Callable[[], object], timeout: float
) -> Outcome:
    """See `Coordinator.run_once`."""
    raised: list[Exception] = []

    def action(_: StepContext) -> None:
        try:
            function()
        except Exception as error:
            raised.append(error)
            raise

    plan = Plan(step, revision, [Step(step, action)], Budget(failures=1))
    try:
        return run(plan, coordinator, timeout=timeout)
    except StepFailed:
        if raised:
            raise raised[-1] from None
        raise


def _ignore(_: Event) -> None:
    """Observe nothing."""


def __getattr__(name: str) -> object:
    """Load `StepContext`, which builds on this module, at first use."""
    if name == "StepContext":
        from coordinate._leading import StepContext  # noqa: PLC0415 -- see above

        return StepContext
    message = f"module 'coordinate.steps' has no attribute {name!r}"
    raise AttributeError(message)
