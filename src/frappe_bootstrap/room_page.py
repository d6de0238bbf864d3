"""What the waiting room shows: a page without scripts, and Prometheus text."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import msgspec

from coordinate.types import MarkerState

if TYPE_CHECKING:
    from frappe_bootstrap.status import StepStatus

_STEP_NAMES = {
    "config": "Configuration",
    "site": "Site",
    "migrate": "Database migration",
    "apps": "Apps",
    "assets": "Assets",
    "ready": "Ready",
}
_MARKS = {"done": "✓", "in progress": "…", "failed": "✗", "interrupted": "↻", "not begun": "·"}
_MINUTE = 60


class SiteRow(msgspec.Struct, frozen=True):
    """One site as its markers show it."""

    site: str
    leader: str
    steps: tuple[StepStatus, ...]


class Snapshot(msgspec.Struct, frozen=True):
    """What a container shows of itself and of the fleet's work.

    Args:
        state: ``starting``, ``waiting``, ``leading``, ``failed``, ``serving`` or ``unready``.
        revision: that this container brings about.
        host: which container this is, as others see it: POD_NAME where that is set, else the host's name.
        elapsed: seconds since it started.
        message: what it waits for, in words.
        sites: what the markers say.
    """

    state: str
    revision: str
    host: str
    elapsed: float
    message: str = ""
    sites: tuple[SiteRow, ...] = ()

    @property
    def ready(self) -> bool:
        """Return whether this container serves."""
        return self.state == "serving"

    @property
    def expected(self) -> float:
        """Return the seconds that the rest may take, by what the last revision took; 0: nobody knows."""
        rest = 0.0
        for row in self.sites:
            for step in row.steps:
                if step.state == MarkerState.DONE.value:
                    continue
                spent = step.seconds if step.state == MarkerState.IN_PROGRESS.value else 0.0
                rest += max(0.0, step.expected_seconds - spent)
        return rest


def headline(shown: Snapshot) -> str:
    """Return what goes on in one sentence."""
    if any(step.state == MarkerState.FAILED.value for row in shown.sites for step in row.steps):
        return "The update has met a problem. An administrator has to look at it."
    return "The site is being updated and will be back soon."


def duration(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = int(seconds // _MINUTE)
    return f"{minutes} min {seconds - minutes * _MINUTE:.0f} s" if minutes < _MINUTE else f"{minutes / 60:.1f} h"


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--paper:#fff;--soft:#60646c;--line:#d9d9e0;--good:#18794e;--bad:#ce2c31;
--work:#0b68cb}
@media (prefers-color-scheme:dark){:root{--ink:#edeef0;--paper:#111113;--soft:#b0b4ba;--line:#363a3f;--good:#3dd68c;
--bad:#ff9592;--work:#70b8ff}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
main{max-width:44rem;margin:0 auto;padding:clamp(1rem,5vw,4rem) 1rem}h1{font-size:clamp(1.3rem,4vw,1.8rem);
line-height:1.25;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .25rem;overflow-wrap:anywhere}
p{margin:.25rem 0}.soft{color:var(--soft)}ol{list-style:none;margin:.75rem 0;padding:0}
li{border-top:1px solid var(--line);padding:.6rem 0;display:grid;grid-template-columns:1.5rem 1fr auto;gap:.25rem .5rem}
li>.detail{grid-column:2/-1}.done .mark{color:var(--good)}.failed .mark,.failed .state{color:var(--bad)}
.busy .mark,.busy .state{color:var(--work)}progress{width:100%;height:.5rem;accent-color:var(--work)}
pre{grid-column:1/-1;margin:.25rem 0 0;padding:.75rem;border:1px solid var(--line);border-radius:.375rem;
white-space:pre-wrap;overflow-wrap:anywhere;font:.8125rem/1.45 ui-monospace,monospace}
"""


def html(shown: Snapshot, refresh: int) -> str:
    """Return the page; it reloads itself without a script."""
    sites = "".join(_site(row, several=len(shown.sites) > 1) for row in shown.sites)
    rest = f", about {duration(shown.expected)} to go" if shown.expected else ""
    message = f"<p>{escape(shown.message)}</p>" if shown.message else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f'<meta http-equiv="refresh" content="{refresh}"><link rel="icon" href="data:,">'
        f"<title>{escape(headline(shown))}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(headline(shown))}</h1><div role="status">'
        f'<p class="soft">Running for {duration(shown.elapsed)}{rest}. This page reloads by itself.</p>{message}</div>'
        f'{sites}<p class="soft">Revision {escape(shown.revision)} · {escape(shown.host)} · {escape(shown.state)}</p>'
        "</main></body></html>"
    )


def _site(row: SiteRow, *, several: bool) -> str:
    leader = f'<p class="soft">{escape(row.leader)} does the work.</p>' if row.leader else ""
    title = f"<h2>{escape(row.site)}</h2>" if several else "<h2>Steps</h2>"
    return f"<section>{title}{leader}<ol>{''.join(map(_step, row.steps))}</ol></section>"


def _step(step: StepStatus) -> str:
    kind = {"done": "done", "failed": "failed", "in progress": "busy"}.get(step.state, "")
    name = escape(_STEP_NAMES.get(step.step, step.step))
    took = f" · {duration(step.seconds)}" if step.started else ""
    mark = _MARKS.get(step.state, "·")
    return (
        f'<li class="{kind}"><span class="mark" aria-hidden="true">{mark}</span><span>{name}</span>'
        f'<span class="state">{escape(step.state)}{took}</span>{_detail(step, name)}</li>'
    )


def _detail(step: StepStatus, name: str) -> str:
    parts = []
    if step.state == MarkerState.IN_PROGRESS.value:
        part = step.percent / 100 if step.percent >= 0 else 0.0
        if step.percent < 0 and step.expected_seconds:
            part = min(0.95, step.seconds / step.expected_seconds)
        parts.append(f'<progress max="1"{f" value={part:.2f}" if part else ""} aria-label="{name}"></progress>')
        if step.last_line:
            parts.append(f'<p class="soft">{escape(step.last_line)}</p>')
    body = f'<div class="detail">{"".join(parts)}</div>' if parts else ""
    lines = "\n".join(step.last_lines)
    return body + (f'<pre tabindex="0" aria-label="Last lines of {name}">{escape(lines)}</pre>' if lines else "")


def metrics(shown: Snapshot) -> str:
    """Return Prometheus text."""
    lines = [
        "# HELP frappe_bootstrap_ready Whether this container serves its revision.",
        "# TYPE frappe_bootstrap_ready gauge",
        _metric("ready", shown.ready, revision=shown.revision),
        "# HELP frappe_bootstrap_elapsed_seconds Seconds since this container started.",
        "# TYPE frappe_bootstrap_elapsed_seconds gauge",
        _metric("elapsed_seconds", round(shown.elapsed, 1)),
    ]
    for what, text in (
        ("step_done", "Whether a step of this revision is recorded as done."),
        ("step_seconds", "Seconds that the present or last attempt at a step has taken."),
        ("step_failures", "Failed attempts at a step of this revision, of the whole fleet."),
        ("step_crashes", "Attempts at a step that never ended."),
    ):
        lines += [f"# HELP frappe_bootstrap_{what} {text}", f"# TYPE frappe_bootstrap_{what} gauge"]
        lines += [
            _metric(what, _value(what, step), site=row.site, step=step.step)
            for row in shown.sites
            for step in row.steps
        ]
    return "\n".join(lines) + "\n"


def _value(what: str, step: StepStatus) -> float:
    return {
        "step_done": float(step.state == MarkerState.DONE.value),
        "step_seconds": step.seconds,
        "step_failures": float(step.failures),
        "step_crashes": float(step.crashes),
    }[what]


def _metric(name: str, value: float, **labels: str) -> str:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    shown = ",".join(f'{key}="{quoted(text)}"' for key, text in labels.items())
    return f"frappe_bootstrap_{name}{f'{{{shown}}}' if shown else ''} {float(value):g}"
