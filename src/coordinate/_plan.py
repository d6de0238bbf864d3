"""What a fleet is to do: steps in order, for a revision of a scope, and how often it may fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from coordinate.types import MarkerState, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinate._leading import StepContext
    from coordinate.types import MarkerRecord


class Budget(NamedTuple):
    """How often the fleet tries a step before everybody gives up.

    Args:
        failures: attempts that ended badly.
        crashes: attempts that never ended.
        backoff: a process that started more than these seconds after the last failure gets one new attempt.
        pause: seconds a member stands back after a failure of its own, so that another one may try.
        recheck: instead of ``backoff``, after a refusal, which is no failure: an operator may have put it right.
    """

    failures: int = 3
    crashes: int = 5
    backoff: float = 60.0
    pause: float = 1.0
    recheck: float = 60.0

    def allows(self, record: MarkerRecord, born: float) -> bool:
        """Return whether a process that started at ``born`` (wall clock) may expect another attempt at a step."""
        if record.state is not MarkerState.FAILED:
            return True
        if record.verdict is Verdict.REFUSED:
            return born > record.finished + self.recheck
        left = record.failures < self.failures and record.crashes < self.crashes
        return left or born > record.finished + self.backoff


class Step(NamedTuple):
    """One unit of work.

    Args:
        name: unique in the plan.
        action: does it; gets a `StepContext`.
        verify: returns why the postcondition does not hold, or None.
        settled: called in an attempt, before its action, for each earlier attempt of this step that did not succeed,
            also at other revisions, oldest first: returns when nothing of that one can have an effect any more,
            raises otherwise, which is a failure of the attempt. Its record may tell what is half done.
        fingerprint: of what the step depends on; failures of another fingerprint do not count.
        timeout: seconds that an attempt may take; a command that runs at its end is stopped, and the attempt has
            failed. A function that runs in this process is not stopped.

    What action, verify or settled raises is recorded as a failure and tried again within the budget of the fleet. Two
    errors say more: `StepRefused`, that no attempt can help, and `StepDeclined`, that another member has to do it.
    """

    name: str
    action: Callable[[StepContext], object]
    verify: Callable[[], str | None] | None = None
    settled: Callable[[StepContext, MarkerRecord], object] | None = None
    fingerprint: str = ""
    timeout: float = math.inf


class Plan(NamedTuple):
    """What has to be done for a revision of a scope, in order.

    Args:
        scope: what the steps act on; one lease and one claim, whatever the revision.
        revision: what the steps bring about.
        steps: in order.
        budget: of failures.
        stale_after: seconds after which an in-progress record without token (by hand, by an earlier image) is over.
        redact: removes secrets from what commands print and errors say, before anybody sees or records it.
        remedy: what clears the record of a step that was given up; said in the error.
    """

    scope: str
    revision: str
    steps: Sequence[Step]
    budget: Budget = Budget()
    stale_after: float = 1800.0
    redact: Callable[[str], str] = str
    remedy: str = "coordinate marker reset clears it"
