"""The map of asset names that the framework keeps in its cache: one key for all sites and revisions.

Whoever is asked for a page first puts its own map there, and then all the others link to files that they may not have.
It is dropped at the hand-over, and a supervised container looks again now and then, so that what an older revision put
there while it still served does not outlive it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from frappe_bootstrap import files, redis_link

if TYPE_CHECKING:
    from pathlib import Path

KEY = "assets_json"


def drop_foreign(url: str, sites: Path) -> bool:
    """Drop the cached map unless it names this container's own files; return whether there was something to drop.

    A cache that does not answer is left alone: the framework does without it, too.
    """
    try:
        cached = redis_link.ask(url, "GET", KEY)
        if cached is None or _is_ours(cached, sites):
            return False
        return redis_link.ask(url, "DEL", KEY) == b"1"
    except OSError:
        return False


def _is_ours(cached: bytes, sites: Path) -> bool:
    """Look for each of our names in it: it is a pickle, which is never to be opened."""
    try:
        own = json.loads(files.read(sites / "assets" / "assets.json"))
    except (OSError, ValueError):
        return True  # without a map of our own there is nothing to compare with
    return isinstance(own, dict) and all(str(path).encode() in cached for path in own.values())
