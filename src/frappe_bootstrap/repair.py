"""What an operator decides: fill a half-made site again, or take a healthy one as ours.

Both run as a step under the site's lease, so that no replica is at work meanwhile; both leave the records of failed
attempts cleared, so that the fleet may boot. Not promised: anything about what was in a half-made site's database.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from coordinate.errors import Contended
from coordinate.steps import Plan, Step, run
from coordinate.types import MarkerState
from frappe_bootstrap.codes import refuse
from frappe_bootstrap.inspection import Kind
from frappe_bootstrap.owning import floor, own
from frappe_bootstrap.steps.creation import Creation

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate import Coordinator, Lease
    from coordinate.events import Event
    from coordinate.marker import Markers
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work


def repair(work: Work, coordinator: Coordinator, observer: Callable[[Event], object] | None = None) -> None:
    """Bring a half-made or missing site to a fresh one. A healthy site stays as it is.

    Raises:
        StepRefused: its database is another site's on this volume.
        CoordinateError: it did not work; the site is still half-made.
    """
    _run(work, coordinator, Creation(work, operator=True).step(), observer)


def adopt(work: Work, coordinator: Coordinator, observer: Callable[[Event], object] | None = None) -> None:
    """Write our record into a healthy site that somebody else made, or that carries another site's record.

    Raises:
        StepFailed: the site is not healthy, or its database is another site's on this volume.
    """
    step = Creation(work, operator=True).step()

    def healthy_only(context: StepContext) -> object:
        """Do what the step does, unless that would be more than a record."""
        state = work.bench.state()
        if state.kind is not Kind.HEALTHY:
            refuse(f"site {work.settings.site} is {state}; only a healthy site can be adopted; nothing was changed")
        return step.action(context)

    _run(work, coordinator, step._replace(action=healthy_only), observer)


def _run(work: Work, coordinator: Coordinator, step: Step, observer: Callable[[Event], object] | None) -> None:
    revision = f"operator-{secrets.token_hex(8)}"
    plan = Plan(work.scope, revision, [step], redact=_redactor(work), stale_after=work.settings.stale_after)
    markers = coordinator.markers(work.scope)
    try:
        run(plan, coordinator, timeout=work.settings.boot_timeout, observer=observer, floor=floor(work))
    finally:
        markers.reset(step.name, revision)
    # Who leads by now tries again already, if it is of the failed revision; what it has begun must not be cleared.
    try:
        with own(work, coordinator, work.settings.wait_timeout, blocking=False) as lease:
            _clear(markers, step.name, lease)
    except Contended as contended:
        text = f"failed attempts were not cleared ({contended}); then: frappe-bootstrap retry {work.settings.site}"
        work.log(step.name, text)


def _clear(markers: Markers, step: str, lease: Lease) -> None:
    """Clear the records of failed attempts at a step, of all revisions."""
    for known in markers.view().records:
        if known.step == step and known.state is MarkerState.FAILED:
            lease.check()
            markers.reset(known.step, known.revision)


def _redactor(work: Work) -> Callable[[str], str]:
    words = sorted(work.settings.secrets, key=len, reverse=True)

    def redact(text: str) -> str:
        """Replace secrets."""
        for word in words:
            text = text.replace(word, "***")
        return text

    return redact
