"""What is known about a site, for people and for programs: truth by SQL, who leads, each step."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import msgspec

from coordinate.errors import BackendUnavailable
from coordinate.types import MarkerState

if TYPE_CHECKING:
    from coordinate import Coordinator
    from coordinate.types import MarkerRecord, MarkerView
    from frappe_bootstrap.work import Work

_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s?%")
_TAIL = 10


class StepStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the wanted revision."""

    step: str
    state: str
    started: str = ""
    seconds: float = 0.0
    expected_seconds: float = 0.0
    """How long it took at the last revision that did it; 0: it never was done before."""
    percent: int = -1
    last_line: str = ""
    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    exit_code: int = 0
    owner: str = ""
    token: int = 0
    last_lines: tuple[str, ...] = ()


class SiteStatus(msgspec.Struct, frozen=True):
    """One site."""

    site: str
    state: str
    apps: tuple[str, ...]
    revision: str
    ready: bool
    leader: str
    token: int
    steps: tuple[StepStatus, ...]


def of_site(work: Work, coordinator: Coordinator, names: tuple[str, ...]) -> SiteStatus:
    """Return the status of a site; what cannot be asked is said in its place."""
    chosen, view = work.settings, coordinator.markers(work.scope).view()
    try:
        state = work.bench.state()
        shown, apps = str(state), state.apps
    except BackendUnavailable as error:
        shown, apps = f"unknown: {error}", ()
    try:
        holder = coordinator.backend.holder(work.scope)
        leader = str(holder.owner) if holder is not None else ""
    except BackendUnavailable as error:
        leader = f"unknown: {error}"
    steps = steps_of(view, names, chosen.revision, coordinator.clock.wall())
    return SiteStatus(
        site=chosen.site,
        state=shown,
        apps=apps,
        revision=chosen.revision,
        ready=all(step.state == MarkerState.DONE.value for step in steps),
        leader=leader,
        token=view.claim.token if view.claim is not None else 0,
        steps=steps,
    )


def steps_of(view: MarkerView, names: tuple[str, ...], revision: str, now: float) -> tuple[StepStatus, ...]:
    """Return how far each step of a revision is, by its markers alone; ``now`` is the wall clock."""
    return tuple(_step(view, name, revision, now) for name in names)


def expected(view: MarkerView, step: str, revision: str) -> float:
    """Return how long a step took when it was last done at another revision; 0: never, or nobody knows."""
    done = [
        record
        for record in view.records
        if record.step == step and record.revision != revision and record.state is MarkerState.DONE
    ]
    if not done:
        return 0.0
    last = max(done, key=lambda record: record.token)
    return max(0.0, last.finished - last.started)


def percent(text: str) -> int:
    """Return the last percentage that output shows; -1: none."""
    found = [int(number) for number in _PERCENT.findall(text)]
    return found[-1] if found and found[-1] <= 100 else -1  # noqa: PLR2004 -- per cent


def _step(view: MarkerView, name: str, revision: str, now: float) -> StepStatus:
    record = view.find(name, revision)
    before = round(expected(view, name, revision), 1)
    if record is None:
        return StepStatus(name, "not begun", expected_seconds=before)
    running = record.state is MarkerState.IN_PROGRESS
    lines = record.detail.splitlines()
    return StepStatus(
        step=name,
        state=record.state.value,
        started=dt.datetime.fromtimestamp(record.started, dt.UTC).isoformat(timespec="seconds"),
        seconds=round(max(0.0, (now if running else record.finished) - record.started), 1),
        expected_seconds=before,
        percent=percent(record.detail) if running else -1,
        last_line=lines[-1] if running and lines else "",
        attempts=record.attempts,
        failures=record.failures,
        crashes=record.crashes,
        exit_code=record.exit_code,
        owner=record.owner,
        token=record.token,
        last_lines=_failure(record),
    )


def _failure(record: MarkerRecord) -> tuple[str, ...]:
    """Return the last lines of an attempt that did not succeed."""
    ended = record.state in {MarkerState.FAILED, MarkerState.INTERRUPTED}
    return tuple(record.detail.splitlines()[-_TAIL:]) if ended else ()


def as_text(status: SiteStatus) -> str:
    """Return it for people."""
    head = f"site {status.site}: {status.state}"
    lines = [f"{head}; apps: {', '.join(status.apps)}" if status.apps else head]
    leads = f"{status.leader} leads, token {status.token}" if status.leader else "nobody leads"
    lines.append(f"revision {status.revision}: {'ready' if status.ready else 'not ready'}; {leads}")
    for step in status.steps:
        lines.append("  " + "  ".join(_words(step)))
        lines += [f"      | {line}" for line in step.last_lines]
    return "\n".join(lines)


def _words(step: StepStatus) -> list[str]:
    words = [f"{step.step:8}", f"{step.state:12}"]
    if step.started:
        words += [step.started, f"{step.seconds:g} s"]
    if step.expected_seconds and step.state != MarkerState.DONE.value:
        words.append(f"(last time {step.expected_seconds:g} s)")
    if step.percent >= 0:
        words.append(f"{step.percent} %")
    if step.failures or step.crashes:
        words.append(f"failed {step.failures} times, crashed {step.crashes} times, code {step.exit_code}")
    if step.last_line:
        words.append(f"| {step.last_line}")
    return words
