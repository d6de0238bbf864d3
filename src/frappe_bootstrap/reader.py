"""Reading variables: every problem is kept, so that all of them are reported at once."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_APP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORTS = range(1, 65536)


class Reader:
    """Reads variables one by one and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []
        self.notices: list[str] = []
        self.secrets: set[str] = set()

    def problem(self, name: str, fix: str) -> None:
        """Remember that a variable is wrong; the text never holds a secret's value."""
        self.problems.append(f"{name}: {fix}")

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        """Return a value; empty counts as not given."""
        value = self._environ.get(name, "").strip()
        if value.startswith("tcp://"):
            self.problem(
                name,
                f"{value!r} was put there by Kubernetes for a service of that name; "
                "set enableServiceLinks: false in the pod, or set the variable yourself",
            )
            return default
        if not value and required:
            self.problem(name, "is required and not set")
        return value or default

    def secret(self, name: str) -> str | None:
        """Return a secret from the variable or from the file that ``NAME_FILE`` names; None: not given."""
        value, file = self._environ.get(name), self._environ.get(f"{name}_FILE")
        if file and value:
            self.problem(f"{name}_FILE", f"unset it or {name}: both are given")
        elif file:
            try:
                value = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeError) as error:
                self.problem(f"{name}_FILE", f"cannot read {file}: {getattr(error, 'strerror', None) or 'not text'}")
        if value:
            self.secrets.add(value)
        return value or None

    def number(self, name: str, default: float, *, low: float = 0.0, zero: bool = False) -> float:
        """Return a number of seconds above ``low``, or the default; 0 as well if ``zero`` has a meaning."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not (low < value < math.inf or value == default or (zero and value == 0)):
            self.problem(name, f"{text!r} is not a number of seconds above {low:g}")
            return default
        return value

    def count(self, name: str, default: int) -> int:
        """Return a whole number above 0."""
        text = self.text(name)
        if text and not (text.isascii() and text.isdigit() and int(text)):
            self.problem(name, f"{text!r} is not a whole number above 0")
            return default
        return int(text) if text else default

    def port(self, name: str, default: int = 0, *, required: bool = False) -> int:
        """Return a port, or the default if it is not given."""
        text = self.text(name, required=required)
        if text and not (text.isascii() and text.isdigit() and int(text) in _PORTS):
            self.problem(name, f"{text!r} is not a port between 1 and 65535")
            return default
        return int(text) if text else default

    def choice(self, name: str, words: Mapping[str, str], default: str) -> str:
        """Return the meaning of one of several words."""
        text = self.text(name, default).lower()
        if text not in words:
            self.problem(name, f"{text!r} is not one of {', '.join(words)}")
        return words.get(text, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a switch."""
        yes, no = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
        return self.choice(name, {**dict.fromkeys(yes, "1"), **dict.fromkeys(no, "0")}, str(int(default))) == "1"

    def names(self, name: str) -> tuple[str, ...]:
        """Return a list of apps."""
        words = tuple(dict.fromkeys(self.text(name).replace(",", " ").split()))
        for word in words:
            if not _APP.fullmatch(word):
                self.problem(name, f"{word!r} is not the name of an app (letters, digits, _)")
        return words

    def redis_url(self, name: str) -> str | None:
        """Return a Redis URL that has a port; one without makes a migration crash."""
        url = self.secret(name)
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port is not None
            password = parts.password
        except ValueError:
            usable, password = False, None
        if not usable:
            self.problem(name, "must look like redis://[user:password@]host:port[/number], with the port")
        if password:
            self.secrets.update({password, unquote(password)})
        return url
