"""What the leader of a plan does with its lease: claim, read again, and bring each step about."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING

from coordinate._pulse import Pulse
from coordinate._supervise import Command, failure
from coordinate.errors import (
    AlreadyDone,
    BackendUnavailable,
    CommandFailed,
    Interrupted,
    LeaseLost,
    StaleToken,
    StepDeclined,
    StepFailed,
    StepRefused,
    WaitTimeout,
)
from coordinate.steps import Outcome, TryAgain, given_up
from coordinate.types import Gone, MarkerState, Renewed, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coordinate.lease import Lease
    from coordinate.steps import Member, Step
    from coordinate.types import MarkerRecord, MarkerView

log = logging.getLogger("coordinate")

PROGRESS_EVERY = 1.0
"""Seconds between records of a step's last lines of output."""


DOUBT_PAUSE = 0.05
"""Seconds between looks at a lease that is in doubt."""
FOREIGN_PAUSE = 5.0
"""Seconds between looks at a step that somebody outside this protocol has begun."""


class StepContext:
    """What a step's action gets: the lease, guarded commands, notes.

    Args:
        lease: held when the action begins; `Lease.check` before each effect of your own.
        revision: of the plan.
        record: the attempt's marker as last written.
    """

    def __init__(self, leader: Leader, step: Step, record: MarkerRecord) -> None:
        self.lease = leader.lease
        self.revision = record.revision
        self.record = record
        self.output = ""
        self._leader = leader
        self._ends_at = leader.clock.now() + step.timeout
        self._recorded_at = 0.0
        self._changed_at = leader.clock.now()
        self._recorded = ""
        self._writing = threading.Lock()
        """Held while the record is read and written: progress, notes and the pulse come from several threads."""

    def check(self) -> None:
        """Return when the lease may be relied on; a connection that is interrupted may come back in time.

        Raises:
            LeaseLost: it did not, or the lease is lost.
            Interrupted: a signal asked us to stop.
        """
        self._leader.make_sure()

    def note(self, **texts: str) -> None:
        """Merge texts into the marker's notes, durably, before going on."""
        with self._writing:
            self.record = self._leader.markers.update(self.record, notes=texts)
            self._changed_at = self._leader.clock.now()

    def run(  # noqa: PLR0913 - keywords of subprocess, and three of ours
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
        name: str = "",
        on_line: Callable[[str], object] | None = None,
        timeout: float = math.inf,
    ) -> str:
        """Run a guarded command to its end and return the last lines of its output (both streams).

        It may take ``timeout`` seconds, and no more than what is left of its attempt at the step. Its last lines are
        recorded in the marker about once a second, so others see how far it is; a line for which ``on_line`` returns
        False is not among them.

        Raises:
            CommandFailed: it ended with a code other than 0.
            LeaseLost, Interrupted, WaitTimeout: it was stopped; all of its descendants are dead.
        """
        self._leader.make_sure()
        # The limit is the attempt's: what earlier commands of it took is gone.
        left = min(timeout, max(0.0, self._ends_at - self._leader.clock.now()))
        command = Command(argv, env, cwd, pass_fds, stdin, timeout=left)
        runner = self._leader.member.coordinator.supervise(self.lease, command)
        runner.on_line = on_line
        runner.redact = self._leader.redact
        runner.on_pass = lambda: self._progress(runner.tail)
        try:
            code = runner.run()
        finally:
            self.output = runner.tail
        if code:
            raise failure(name or argv[0], code, runner.tail)
        return runner.tail

    def _progress(self, tail: str) -> None:
        now = self._leader.clock.now()
        if tail == self._recorded or now - self._recorded_at < PROGRESS_EVERY:
            return
        with self._writing:
            self._recorded, self._recorded_at = tail, now
            try:
                self.record = self._leader.markers.update(self.record, detail=tail, tries=1)
                self._changed_at = now
            except BackendUnavailable as error:
                # Progress is a convenience; whether we may go on is the lease's question, not this write's.
                log.warning("progress not recorded: %s", error)

    def beat(self) -> None:
        """Change the record if nothing else has for a while; see `coordinate._pulse`."""
        with self._writing:
            now = self._leader.clock.now()
            if now - self._changed_at < self._leader.pulse_period / 2 or not self.lease.alive:
                return
            try:
                self.record = self._leader.markers.beat(self.record)
                self._changed_at = now
            except (BackendUnavailable, StaleToken, AlreadyDone) as error:
                # Who may act is decided where the step's own writes and the lease's renewals go.
                log.warning("not shown to be at work: %s", error)


class Leader:
    """One term of leadership."""

    def __init__(self, member: Member, lease: Lease) -> None:
        self.member = member
        self.lease = lease
        self.markers = member.markers
        self.clock = member.coordinator.clock
        self._plan = member.plan
        self._unsettled: list[tuple[Step, MarkerRecord]] = []

    def redact(self, text: str) -> str:
        """Return text as it may be recorded."""
        return self._plan.redact(text)

    @property
    def pulse_period(self) -> float:
        """Return how often a silent attempt shows that it is under way: thrice before others may take it for dead."""
        return self.lease.timing.ttl / 4

    def make_sure(self) -> None:
        """Return when the lease may be relied on; while it is in doubt nothing is begun and nothing is written.

        Raises:
            LeaseLost: the lease is lost, or the doubt lasted until its time was over.
            Interrupted: a signal asked us to stop.
        """
        hub = self.member.coordinator.hub
        while self.lease.alive and self.lease.doubt is not None:
            hub.check_interrupt()
            with hub.wait() as wait:
                wait.sleep(self.clock.now() + DOUBT_PAUSE)
        self.lease.check()

    def run(self) -> Outcome:
        """Claim, confirm, read again, do what is not done."""
        self._wait_out_other_store()
        store = self.member.coordinator.backend.store_id
        self.markers.claim(self.lease, store)
        self._confirm()
        view = self.markers.view()
        self._check_unled(view)
        ran = False
        self.member.tell("leading", token=self.lease.token, text="leading")
        self._unsettled = self._leftovers(view)
        for step in self._plan.steps:
            self.member.coordinator.hub.check_interrupt()
            record = view.find(step.name, self._plan.revision)
            if record is None or record.state is not MarkerState.DONE:
                self._bring_about(step, record)
                ran = True
        return Outcome.RAN if ran else Outcome.WAITED

    def _check_unled(self, view: MarkerView) -> None:
        """Stand back if somebody has led after all, between our look and our claim: its lease may still be believed."""
        if self.member.unled and view.records:
            message = f"somebody led {self._plan.scope} while we asked for its lease"
            raise TryAgain(message)

    def _leftovers(self, view: MarkerView) -> list[tuple[Step, MarkerRecord]]:
        """Return what attempts at other revisions left: they acted on the same scope, and may still do so.

        A step that was done afterwards, at any revision, has settled what was before it: tokens tell the order.
        """
        steps = {step.name: step for step in self._plan.steps}
        done = dict.fromkeys(steps, 0)
        for record in view.records:
            if record.state is MarkerState.DONE and record.step in done:
                done[record.step] = max(done[record.step], record.token)
        old = [
            record
            for record in view.records
            if record.step in steps
            and record.revision != self._plan.revision
            and record.state is not MarkerState.DONE
            and record.token >= done[record.step]
        ]
        return [(steps[record.step], record) for record in sorted(old, key=lambda record: record.token)]

    def _wait_out_other_store(self) -> None:
        """Let a leader of another lease store run out: its claim must not change for its whole ttl."""
        ours = self.member.coordinator.backend.store_id
        view = self.markers.view()
        while view.claim is not None and view.claim.lease_store not in {"", ours}:
            claim, ends_at = view.claim, self.clock.now() + view.claim.ttl
            while self.clock.now() < ends_at:
                self.make_sure()
                if self.clock.now() >= self.member.ends_at:
                    message = f"a leader of another lease store ({claim.lease_store}) is still at work"
                    raise WaitTimeout(message)
                with self.member.coordinator.hub.wait((self.markers.backend, self.markers.topic)) as wait:
                    wait.sleep(min(ends_at, self.clock.now() + 1.0))
            seen = self.markers.view()
            if (seen.claim, seen.records) == (claim, view.records):
                return
            view = seen

    def _confirm(self) -> None:
        """Make one confirmed renewal after the claim: of two owners of a lost lease one is refused here."""
        sent = self.clock.now()
        (answer,) = self.member.coordinator.backend.renew([self.lease.grant])
        match answer:
            case Renewed(ttl=ttl):
                self.lease.extend(sent, ttl)
            case Gone(reason=reason):
                self.lease.lose(reason, "refused right after the claim")
            case _:
                message = f"lease {self.lease.name} could not be confirmed after the claim"
                raise TryAgain(message)
        self.make_sure()

    def _begin(self, step: Step, before: MarkerRecord | None) -> StepContext:
        """Record the beginning of an attempt, unless the budget or somebody outside this protocol forbids it."""
        self._check_budget(step, before)
        for other, old in self._unsettled:
            self._check_foreign(other, old)
        self._check_foreign(step, before)
        if before is not None and before.state is MarkerState.IN_PROGRESS:
            self.member.tell("takeover", step.name, self.lease.token, f"begun by {before.owner or 'an earlier image'}")
        self.make_sure()
        record = self.markers.begin(step.name, self._plan.revision, before, step.fingerprint)
        self.member.tell("begin", step.name, self.lease.token, f"attempt {record.attempts}")
        return StepContext(self, step, record)

    def _bring_about(self, step: Step, before: MarkerRecord | None) -> None:
        started = self.clock.now()
        context = self._begin(step, before)
        try:
            with Pulse(context.beat, self.pulse_period):
                # Part of the attempt: that an earlier one does not end has to be known to all, and to have an end.
                self._settle(step, context, before)
                self.make_sure()
                step.action(context)
                self.make_sure()
                self._verify(step)
        except (LeaseLost, StaleToken):
            # Not ours any more: write nothing, whoever leads now has read what we left.
            raise
        except Interrupted as stop:
            if self.lease.held:
                self.markers.interrupted(context.record, self.redact(context.output) or str(stop))
            self.member.tell("interrupted", step.name, self.lease.token, str(stop), self.clock.now() - started)
            raise
        except BackendUnavailable as outage:
            # Nobody's failure: stand back, wait for the server, campaign again.
            if self.lease.held:
                self.markers.interrupted(context.record, self.redact(str(outage)))
            raise
        except StepDeclined as declined:
            self.make_sure()
            self._decline(step, context, declined)
        except Exception as error:  # noqa: BLE001 -- whatever an action raises is the step's failure, and recorded
            # What fails as a consequence of a loss is not the step's failure.
            self.make_sure()
            self._fail(step, context, error)
        else:
            self.make_sure()
            self.markers.done(context.record, self.redact(context.output))
            self.member.tell("done", step.name, self.lease.token, "done", self.clock.now() - started)

    def _settle(self, step: Step, context: StepContext, before: MarkerRecord | None) -> None:
        """See to it that nothing of earlier attempts acts any more: other revisions' first, then this one's."""
        for other, old in self._unsettled:
            if other.settled is not None:
                other.settled(context, old)
        self._unsettled = []
        begun = before is not None and (before.attempts or before.state is MarkerState.IN_PROGRESS)
        if begun and before is not None and step.settled is not None:
            step.settled(context, before)

    def _decline(self, step: Step, context: StepContext, declined: StepDeclined) -> None:
        """Leave the step to another member: it is recorded as interrupted, which counts against nothing."""
        reason = self.redact(str(declined))
        self.markers.interrupted(context.record, reason)
        self.member.tell("declined", step.name, self.lease.token, reason)
        self.member.decline(step, declined)
        message = f"{step.name} is left to another member"
        raise TryAgain(message) from declined

    def _verify(self, step: Step) -> None:
        reason = step.verify() if step.verify is not None else None
        if reason is not None:
            message = f"{step.name} ended well but its result is not there: {reason}"
            raise CommandFailed(message, 1, message)

    def _fail(self, step: Step, context: StepContext, error: Exception) -> None:
        """Record the failure; end for good when the budget is spent, else let somebody try again."""
        code, output = _outcome(error, context)
        detail = "\n".join(part for part in (output, f"{type(error).__name__}: {error}") if part)
        verdict = self._verdict(context.record, error)
        record = self.markers.failed(context.record, self.redact(detail), code, verdict)
        kind = "refused" if verdict is Verdict.REFUSED else "failed"
        self.member.tell(kind, step.name, self.lease.token, self.redact(str(error)))
        if not self.member.may_begin(step, record):
            raise given_up(record, self._plan.remedy) from error
        message = f"{step.name} failed ({record.failures} of {self._plan.budget.failures}): {self.redact(str(error))}"
        raise TryAgain(message) from error

    def _verdict(self, record: MarkerRecord, error: Exception) -> Verdict:
        """Return whether those that run now try again after this failure."""
        if isinstance(error, StepRefused):
            return Verdict.REFUSED
        budget = self._plan.budget
        spent = record.failures + 1 >= budget.failures or record.crashes >= budget.crashes
        return Verdict.SPENT if spent else Verdict.OPEN

    def _check_budget(self, step: Step, before: MarkerRecord | None) -> None:
        if before is None or before.fingerprint != step.fingerprint:
            return
        if not self.member.may_begin(step, before):
            raise given_up(before, self._plan.remedy)
        crashed_out = before.state is MarkerState.IN_PROGRESS and before.crashes + 1 >= self._plan.budget.crashes
        if crashed_out:
            import msgspec  # noqa: PLC0415 -- rare path

            record = self.markers.given_up(msgspec.structs.replace(before, crashes=before.crashes + 1))
            if not self.member.may_begin(step, record):
                raise given_up(record, self._plan.remedy)

    def _check_foreign(self, step: Step, before: MarkerRecord | None) -> None:
        """Leave a record without token alone until it is stale: somebody outside this protocol may be at work."""
        if before is None or before.token or before.state is not MarkerState.IN_PROGRESS:
            return
        age = self.clock.wall() - before.started
        if age < self._plan.stale_after:
            message = f"{step.name} is in progress by hand or by an earlier image for {age:.0f} s"
            raise TryAgain(message, FOREIGN_PAUSE)


def _outcome(error: Exception, context: StepContext) -> tuple[int, str]:
    """Return the exit code that is recorded for a failure, and the last lines of output."""
    match error:
        case CommandFailed(code=code, output=output):
            return code, output
        case WaitTimeout():
            return error.exit_code, context.output
        case StepRefused(exit_code=code):
            return code, context.output
    return 1, context.output


__all__ = ["Leader", "StepContext", "StepFailed"]
