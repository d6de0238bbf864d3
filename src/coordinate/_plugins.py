"""From URL scheme to backend class: built-in stores first, then the one plugin that is named by the scheme.

Only what the URL names is imported: no client library is loaded for a store that is not used, and a broken plugin
does not disturb the others. ``COORDINATE_DISABLE`` (scheme names, comma separated) blocks plugins.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, NamedTuple

from coordinate import _entry_points
from coordinate.backend import PLUGIN_API, Backend
from coordinate.errors import PluginError

if TYPE_CHECKING:
    from coordinate._entry_points import Plugin

BUILT_IN = {
    "memory": "coordinate.backends.memory:MemoryBackend",
    "redis": "coordinate.backends.redis:RedisBackend",
    "rediss": "coordinate.backends.redis:RedisBackend",
    "unix": "coordinate.backends.redis:RedisBackend",
    "sentinel": "coordinate.backends.redis:RedisBackend",
}
OFFICIAL = {
    "etcd": "coordinate-etcd",
    "etcds": "coordinate-etcd",
    "file": "coordinate-filelock",
    "zk": "coordinate-zookeeper",
    "zookeeper": "coordinate-zookeeper",
}
"""Schemes of our own plugins and the distribution to install for them."""


class PluginInfo(NamedTuple):
    """One line of ``coordinate backends``."""

    scheme: str
    origin: str
    """``built in``, the distribution that brings it, or the command that would."""
    usable: bool


def backend_class(scheme: str) -> type[Backend]:
    """Return the class for a URL scheme.

    Raises:
        PluginError: unknown scheme (naming the fix), disabled, broken, ambiguous or outdated plugin.
    """
    base = scheme.partition("+")[0]
    target = BUILT_IN.get(base)
    if target is not None:
        module, _, attribute = target.partition(":")
        found: type[Backend] = getattr(importlib.import_module(module), attribute)
    else:
        found = _from_plugin(base)
    if scheme not in found.schemes:
        message = f"{scheme}://: {found.__name__} answers to {', '.join(found.schemes)} only"
        raise PluginError(message)
    return found


def _from_plugin(scheme: str) -> type[Backend]:
    entry = _entry_point(scheme)
    import pluggy  # noqa: PLC0415

    from coordinate import hookspecs  # noqa: PLC0415 -- pluggy is only paid for when a plugin is needed

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(entry.load(), name=entry.name)
        manager.check_pending()
        classes = [found for answer in manager.hook.coordinate_backends() for found in answer]
    except Exception as error:  # a plugin may fail in any way; it must not take its neighbours down
        message = f"the plugin {entry.value!r} for {scheme}:// cannot be loaded: {type(error).__name__}: {error}"
        raise PluginError(message) from error
    for found in classes:
        if scheme in found.schemes:
            return _checked(found, entry)
    message = f"the plugin {entry.value!r} does not answer to {scheme}:// although it is registered for it"
    raise PluginError(message)


def _checked(found: type[object], entry: Plugin) -> type[Backend]:
    if not issubclass(found, Backend):
        message = f"the plugin {entry.value!r}: {found!r} is not a coordinate.backend.Backend"
        raise PluginError(message)
    if found.plugin_api != PLUGIN_API:
        message = (
            f"the plugin {entry.value!r} was written for plugin API {found.plugin_api}, "
            f"this version has {PLUGIN_API}: update {_outdated(found.plugin_api, entry)}"
        )
        raise PluginError(message)
    return found


def _outdated(api: int, entry: Plugin) -> str:
    """Return which of the two distributions is behind: the plugin's, or ours."""
    name = (entry.distribution or entry.value).replace("_", "-") if api < PLUGIN_API else "coordinate-core"
    return f"it: pip install --upgrade {name}"


def _entry_point(scheme: str) -> Plugin:
    if scheme in _disabled():
        message = f"{scheme}:// is disabled by COORDINATE_DISABLE"
        raise PluginError(message)
    found = _entry_points.find(scheme)
    if not found:
        raise PluginError(_unknown(scheme))
    values = {entry.value for entry in found}
    if len(values) > 1:
        message = (
            f"{scheme}:// is claimed by more than one plugin ({', '.join(sorted(values))}): "
            "uninstall all but one of their distributions"
        )
        raise PluginError(message)
    return found[0]


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get("COORDINATE_DISABLE", "").split(",") if name.strip()}


def _unknown(scheme: str) -> str:
    if scheme in OFFICIAL:
        return f"{scheme}:// needs a plugin: pip install {OFFICIAL[scheme]}"
    known = sorted({*BUILT_IN, *OFFICIAL, *(entry.name for entry in _entry_points.every())})
    return f"{scheme}:// is not a store this installation knows; known: {', '.join(known)}"


def fault(scheme: str) -> str:
    """Return why a plugin's scheme cannot be used, or nothing; loads that plugin and no other."""
    try:
        backend_class(scheme)
    except PluginError as error:
        return str(error)
    return ""


def installed() -> list[PluginInfo]:
    """Return every scheme that is known, without importing any plugin."""
    rows = [PluginInfo(scheme, "built in", usable=True) for scheme in BUILT_IN]
    disabled = _disabled()
    seen = set()
    for entry in _entry_points.every():
        seen.add(entry.name)
        rows.append(PluginInfo(entry.name, entry.distribution or entry.value, usable=entry.name not in disabled))
    rows.extend(
        PluginInfo(scheme, f"pip install {name}", usable=False)
        for scheme, name in OFFICIAL.items()
        if scheme not in seen
    )
    return rows
