"""Which plugins are installed: a quick look at what installers wrote, and the standard library's thorough one.

`importlib.metadata` is the authority, but its import (e-mail parser, zip files, sockets) costs more than everything
else between the start of a program and its lease. So `find` looks into the folders of ``sys.path`` itself first, and
takes that answer only where the authority would give the very same one: exactly one distribution declares the name,
none other shares that distribution's name, and nothing but plain folders and the standard finder is involved.
Everything else (nothing found, doubt, several claims, zip files, eggs, finders of others) is left to the authority.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib.machinery import PathFinder
from typing import NamedTuple

GROUP = "coordinate.backends"
_FILE = "entry_points.txt"
_ENDINGS = (".dist-info", ".egg-info")
_PLAIN = re.compile(r"[\w.]+(?::[\w.]+)?")
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class Plugin(NamedTuple):
    """One entry point: the URL scheme it is for, what it names, and which distribution brings it."""

    name: str
    value: str
    distribution: str = ""

    def load(self) -> object:
        """Return the object that ``value`` names: ``module`` or ``module:attribute``."""
        module, _, attributes = self.value.partition("[")[0].strip().partition(":")
        found: object = importlib.import_module(module.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            found = getattr(found, attribute)
        return found


def find(name: str) -> list[Plugin]:
    """Return all entry points of our group with this name; more than one where installations contradict."""
    quick = _look(name)
    return [plugin for plugin in every() if plugin.name == name] if quick is None else [quick]


def every() -> list[Plugin]:
    """Return all entry points of our group, as `importlib.metadata` sees them."""
    from importlib.metadata import entry_points  # noqa: PLC0415 -- see above

    found = entry_points(group=GROUP)
    return [Plugin(entry.name, entry.value, entry.dist.name if entry.dist else "") for entry in found]


def _look(name: str) -> Plugin | None:
    """Return the one entry point that leaves no doubt, or None."""
    folders = list(dict.fromkeys(map(os.fspath, sys.path)))
    if any(map(_is_foreign, sys.meta_path)) or any(map(_is_archive, folders)):
        return None
    entries = [(folder, entry) for folder in folders for entry in _listed(folder)]
    try:
        found = [plugin for place in entries for plugin in _declared(*place) if plugin.name == name]
    except (OSError, UnicodeDecodeError):
        return None
    if len(found) != 1 or not _PLAIN.fullmatch(found[0].value):
        return None
    # A folder in capitals is one whose name the authority takes from inside.
    if not all(entry.endswith(_ENDINGS) for _, entry in entries):
        return None
    return found[0] if [_normalized(entry) for _, entry in entries].count(found[0].distribution) == 1 else None


def _is_foreign(finder: object) -> bool:
    return hasattr(finder, "find_distributions") and finder is not PathFinder


def _is_archive(folder: str) -> bool:
    return folder.lower().endswith(".egg") or os.path.isfile(folder)  # noqa: PTH113 -- pathlib is what we save


def _listed(folder: str) -> list[str]:
    """Return the metadata folders in a folder of ``sys.path``; whatever cannot be listed has none."""
    try:
        names = os.listdir(folder or ".")  # noqa: PTH208 -- as above
    except OSError:
        return []
    return [name for name in names if name.lower().endswith(_ENDINGS)]


def _normalized(entry: str) -> str:
    """Return the name by which distributions are told apart, from a metadata folder's name."""
    return re.sub(r"[-_.]+", "_", entry.rpartition(".")[0].partition("-")[0]).lower()


def _declared(folder: str, entry: str) -> list[Plugin]:
    """Return what one distribution declares in our group."""
    try:
        with open(os.path.join(folder, entry, _FILE), encoding="utf-8") as file:  # noqa: PTH118, PTH123 -- as above
            text = file.read()
    except _ABSENT:
        return []
    plugins, section = [], ""
    for line in map(str.strip, text.splitlines() if GROUP in text else ()):
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == GROUP and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            plugins.append(Plugin(name.strip(), value.strip(), _normalized(entry)))
    return plugins
