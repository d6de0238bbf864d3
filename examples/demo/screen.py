"""The timeline that the demo prints: coloured, with a live last line, on a terminal; plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time

_COLOURS = {"replica-1": "36", "replica-2": "35", "replica-3": "33", "demo": "1"}
_CLEAR = "\r\x1b[K"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Screen:
    """Prints lines with the seconds since the start, and below them what happens at this moment."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
        self._start = time.monotonic()

    def restart(self) -> None:
        """Let the time begin now."""
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start

    def heading(self, text: str) -> None:
        """Print a line that belongs to nobody."""
        self._print(f"\n{self._coloured(text, '1')}")

    def tell(self, who: str, text: str, *, at: float | None = None, colour: str = "") -> None:
        """Print a line of somebody."""
        seconds = self.elapsed if at is None else at
        name = self._coloured(f"{who:9}", _COLOURS.get(who, ""))
        self._print(f"{seconds:6.2f} s  {name}  {self._coloured(text, colour)}")

    def good(self, who: str, text: str) -> None:
        """Print what was hoped for."""
        self.tell(who, text, colour="32")

    def bad(self, who: str, text: str) -> None:
        """Print what is dramatic."""
        self.tell(who, text, colour="1;31")

    def status(self, text: str) -> None:
        """Replace the live line; nothing without a terminal."""
        if self.live:
            wheel = _SPINNER[int(self.elapsed * 10) % len(_SPINNER)]
            sys.stdout.write(f"{_CLEAR}\x1b[2m{self.elapsed:6.2f} s  {wheel} {text}\x1b[0m")
            sys.stdout.flush()

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.live and colour else text

    def _print(self, text: str) -> None:
        sys.stdout.write(f"{_CLEAR if self.live else ''}{text}\n")
        sys.stdout.flush()
