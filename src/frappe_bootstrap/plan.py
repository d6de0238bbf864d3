"""A dry run: what a start would do now, and why, from the truth and the records. Nothing is changed by asking."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import CommandFailed, StepRefused
from coordinate.types import MarkerState
from frappe_bootstrap import image, revisions, steps
from frappe_bootstrap.inspection import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate.types import MarkerRecord, MarkerView
    from frappe_bootstrap.inspection import State
    from frappe_bootstrap.work import Work

NOTHING, DO, REFUSE = "nothing to do", "do", "refuse"


class Forecast(NamedTuple):
    """What would become of one step."""

    step: str
    what: str
    why: str


def of_site(work: Work, state: State, view: MarkerView) -> Iterator[Forecast]:
    """Yield what would happen to each step, in order; nothing comes after a refusal."""
    try:
        verdict = revisions.judge(work.settings, state) if state.kind is Kind.HEALTHY else None
    except StepRefused as refused:
        yield Forecast("boot", REFUSE, str(refused))
        return
    if verdict is revisions.Verdict.TOLERATED:
        yield Forecast("boot", NOTHING, "the database is ahead of this image; it is served without any change")
        return
    undone = verdict is not None and revisions.is_undone(work.settings, state, view)
    plan, now = steps.plan(work), time.time()
    for step in plan.steps:
        forgotten = undone and step.name not in revisions.KEPT
        record = None if forgotten else view.find(step.name, work.settings.revision)
        if record is not None and record.fingerprint == step.fingerprint and not plan.budget.allows(record, now):
            yield _given_up(record)
            return
        forecast = _of_step(work, step.name, state, record)
        if undone and step.name == "migrate" and forecast.what == DO:
            forecast = forecast._replace(why="recorded as done, but the database says otherwise")
        yield forecast
        if forecast.what == REFUSE:
            return


def _of_step(work: Work, step: str, state: State, record: MarkerRecord | None) -> Forecast:
    if record is not None and record.state is MarkerState.DONE:
        return _done(work, step, state, record)
    what, why = {
        "config": _config,
        "site": _site,
        "migrate": _migrate,
        "apps": _apps,
        "assets": _assets,
        "ready": lambda *_: (DO, "the files that probes of the original image look for"),
    }[step](work, state)
    if record is not None:
        why += f" (attempt {record.attempts + 1}; the last one: {record.state.value})"
    return Forecast(step, what, why)


def _given_up(record: MarkerRecord) -> Forecast:
    why = f"{record.verdict.value}; `frappe-bootstrap retry` clears it. {record.detail.strip()[-300:]}"
    return Forecast(record.step, REFUSE, why)


def _done(work: Work, step: str, state: State, record: MarkerRecord) -> Forecast:
    """Look behind the record: a start does, too."""
    if step == "site" and state.kind is not Kind.HEALTHY:
        return Forecast(step, REFUSE, f"recorded as done, but the site is {state}")
    if step == "config" and (wrong := _wrong_config(work)):
        return Forecast(step, DO, f"recorded as done, but {wrong}")
    if step == "assets" and (wrong := steps.Assets(work).amiss()):
        return Forecast(step, DO, f"recorded as done, but {wrong}")
    return Forecast(step, NOTHING, f"done under token {record.token}")


def _wrong_config(work: Work) -> str | None:
    try:
        return steps.Config(work).amiss()
    except CommandFailed as error:
        return str(error)


def _config(work: Work, _: State) -> tuple[str, str]:
    wrong = _wrong_config(work)
    return (DO, wrong) if wrong else (NOTHING, "common_site_config.json is as it should be")


def _site(work: Work, state: State) -> tuple[str, str]:
    if state.kind is Kind.HEALTHY:
        return NOTHING, "the site is healthy"
    if state.kind is not Kind.ABSENT:
        return REFUSE, f"the site is {state}"
    chosen = work.settings
    user, name = chosen.database.root_user, chosen.database.name
    reasons = {
        "SKIP_INIT=1 forbids to create it": not chosen.create,
        "DB_ROOT_PASS and ADMIN_PASS are needed, here or at another replica": (
            chosen.database.root_password is None or chosen.admin_password is None
        ),
        f"the database does not let {user} in: {state.root_error}": bool(state.root_error),
        f"its database or database user {name} exists": state.database is not False,
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    return (REFUSE, f"there is no site; {reason}") if reason else (DO, f"new-site with database {name}")


def _migrate(work: Work, _: State) -> tuple[str, str]:
    return DO, f"revision {work.settings.revision} is not recorded as migrated"


def _apps(work: Work, state: State) -> tuple[str, str]:
    unknown = [app for app in work.wanted if app not in image.apps(work.settings.bench)]
    if unknown:
        return REFUSE, f"APPS names {', '.join(unknown)}, which the image does not have"
    missing = [app for app in work.wanted if app not in state.apps]
    return (DO, f"install {', '.join(missing)}") if missing else (NOTHING, "every wanted app is installed")


def _assets(work: Work, _: State) -> tuple[str, str]:
    wrong = steps.Assets(work).amiss()
    return (DO, wrong) if wrong else (NOTHING, "every name has its file")


def as_text(site: str, revision: str, forecasts: list[Forecast]) -> str:
    """Return it for people."""
    lines = [f"site {site}, revision {revision}"]
    lines += [f"  {forecast.step:8} {forecast.what}: {forecast.why}" for forecast in forecasts]
    return "\n".join(lines)
