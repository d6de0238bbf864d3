"""Log lines on stderr: time, host and pid, site, revision, step, token, duration; no secret."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coordinate.steps import Event

_LEVELS = {
    **dict.fromkeys(("failed", "refused", "lost"), "ERROR"),
    **dict.fromkeys(("declined", "unavailable", "stale", "takeover"), "WARNING"),
}


class Redactor:
    """Replaces known secret values by ``***``."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form
            for secret in secrets
            for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1])
        }
        self._words = sorted(filter(None, forms), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return a text as it may be shown."""
        for word in self._words:
            text = text.replace(word, "***")
        return text


class Reporter:
    """Writes log lines."""

    def __init__(self, redact: Redactor, site: str = "-", revision: str = "-") -> None:
        self.redact = redact
        self._who = f"{socket.gethostname()}[{os.getpid()}] site={site} rev={revision}"
        self._tokens: dict[str, int] = {}
        self.on_event: Callable[[Event], object] | None = None

    def line(self, text: str, *, level: str = "INFO", step: str = "", token: int = 0, elapsed: float = 0.0) -> None:
        """Write one line, or several with the same head."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        head = f"{now} {level} {self._who}"
        head += f" step={step}" if step else ""
        head += f" token={token}" if token else ""
        head += f" seconds={elapsed:.3f}" if elapsed else ""
        lines = "".join(f"{head} {part}\n" for part in self.redact(text).splitlines() or [""])
        try:
            sys.stderr.write(lines)
            sys.stderr.flush()
        except OSError:
            # Nobody reads our log any more; that must not end a migration.
            return

    def output(self, step: str, text: str) -> None:
        """Write a line that a command printed."""
        self.line(f"| {text}", step=step, token=self._tokens.get(step, 0))

    def event(self, event: Event) -> None:
        """Write what happened in the plan."""
        if self.on_event is not None:
            self.on_event(event)
        if event.kind == "output":
            return
        if event.step:
            self._tokens[event.step] = event.token
        text = event.kind if event.text in {"", event.kind} else f"{event.kind}: {event.text}"
        level = _LEVELS.get(event.kind, "INFO")
        self.line(text, level=level, step=event.step, token=event.token, elapsed=event.elapsed)
