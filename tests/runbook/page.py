"""The page: its sections, and in each the blocks that an operator types, or sees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "operate-frappe.md"


class Block(NamedTuple):
    """A fenced block: ``env`` (lines of .env), ``sh`` (commands), ``text`` (what they print, with * for any text)."""

    kind: str
    text: str


def sections() -> dict[str, list[Block]]:
    """Return the blocks by the headings of the second level."""
    found: dict[str, list[Block]] = {}
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        found[title] = [Block(*pair) for pair in re.findall(r"^```(\w+)\n(.*?)^```", body, re.MULTILINE | re.DOTALL)]
    return found
