"""Which names are allowed, and how any text becomes part of a key or a file name and back."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from coordinate.errors import ConfigError

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_BYTES = 200
_MAX_REVISION = 512


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it is allowed: segments ``[A-Za-z0-9._-]{1,64}`` joined by ``/``, at most 200 bytes.

    Raises:
        ConfigError: with the rule that was broken.
    """
    segments = name.split("/")
    good = all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in segments)
    if not good or len(name) > _MAX_BYTES:
        message = (
            f"{what} {name[:_MAX_BYTES]!r} is not allowed: use segments of 1 to 64 characters out of A-Z a-z 0-9 . _ - "
            f"joined by '/', no '.' or '..' segment, at most {_MAX_BYTES} bytes"
        )
        raise ConfigError(message)
    return name


def check_revision(revision: str) -> str:
    """Return ``revision`` if it is allowed: 1 to 512 printable characters, for example any image reference.

    Raises:
        ConfigError: empty, too long, or with control characters.
    """
    if not 0 < len(revision) <= _MAX_REVISION or not revision.isprintable():
        message = f"revision {revision[:80]!r} is not allowed: 1 to {_MAX_REVISION} printable characters"
        raise ConfigError(message)
    return revision


def encode(text: str) -> str:
    """Return ``text`` with everything but ``A-Za-z0-9._-`` percent-encoded; a leading dot, too; reversible.

    Example:
        >>> encode("site/a:1")
        'site%2Fa%3A1'
    """
    # quote() leaves the tilde alone; nothing else beyond letters, digits and ._- is left.
    escaped = quote(text, safe="").replace("~", "%7E")
    return "%2E" + escaped[1:] if escaped.startswith(".") else escaped


def decode(text: str) -> str:
    """Return what `encode` was given."""
    return unquote(text, errors="strict")
