"""What the image brings: its apps, its fingerprint, and the file names that carry a revision."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from frappe_bootstrap import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LONGEST_NAME = 255


def apps(bench: Path) -> tuple[str, ...]:
    """Return the apps in the image's ``apps`` folder: frappe first, then by name."""
    folder = bench / "apps"
    try:
        found = sorted(entry.name for entry in folder.iterdir() if (entry / entry.name / "hooks.py").is_file())
        plain = sorted(entry.name for entry in folder.iterdir() if entry.name == "frappe")
    except OSError:
        return ("frappe",)
    return tuple(dict.fromkeys((*plain, *found)))


def versions(bench: Path) -> dict[str, str]:
    """Return the version that each app states."""
    found = {}
    for app in apps(bench):
        text = _read(bench / "apps" / app / app / "__init__.py")
        match = re.search(r"^__version__\s*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE)
        found[app] = match[1] if match else ""
    return found


def patches(bench: Path) -> dict[str, list[str]]:
    """Return each app's patches, in order, without comments: a date behind one has it run again, and is no other."""
    return {app: _patches_of(bench, app) for app in apps(bench)}


def _patches_of(bench: Path, app: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in _read(bench / "apps" / app / app / "patches.txt").splitlines()]
    return [line for line in lines if line and not line.startswith("[")]


def fingerprint(bench: Path) -> str:
    """Return the fingerprint of the schema: each app's name, lines of patches.txt and document types.

    Whatever else differs, above all a version or the names of bundles, such images share their data as it is.
    """
    digest = hashlib.sha256()
    for app in apps(bench):
        lines = [line.strip() for line in _read(bench / "apps" / app / app / "patches.txt").splitlines()]
        digest.update("\n".join([f"\0{app}", *filter(None, lines)]).encode())
        for path in sorted((bench / "apps" / app / app).rglob("doctype/*/*.json")):
            if path.stem == path.parent.name:
                digest.update(f"\0{path.relative_to(bench)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"image-{digest.hexdigest()[:16]}"


def assets_fingerprint(bench: Path) -> str:
    """Return the fingerprint of the bundles in the image: their names say what is in them."""
    digest = hashlib.sha256()
    for app in apps(bench):
        dist = bench / "apps" / app / app / "public" / "dist"
        for path in sorted(dist.rglob("*")):
            digest.update(f"{app}/{path.relative_to(dist)}\0".encode())
    return digest.hexdigest()[:16]


def ensure_apps_txt(bench: Path) -> None:
    """Create sites/apps.txt if it is missing: nothing of the framework works without it.

    A list that differs stays: the site's leader changes it, under the lease, before it migrates.
    """
    path = bench / "sites" / "apps.txt"
    if not path.exists():
        files.replace(path, "\n".join(apps(bench)) + "\n")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def encode_revision(revision: str) -> str:
    """Return a revision as part of a file name: reversible; only what a file name cannot hold is changed.

    Probes of the original image test for ``.ready_<IMAGE_REV>`` as it is.
    """
    return quote(revision, safe=":@+=,~")


def decode_revision(text: str) -> str:
    """Return what `encode_revision` was given."""
    return unquote(text, errors="strict")


def mirror_name(kind: str, revision: str) -> str:
    """Return the name of the file that the original image wrote, such as ``.ready_v1``.

    A name longer than a file system takes ends in a hash instead; such a one cannot be decoded.
    """
    name = f".{kind}_{encode_revision(revision)}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(revision.encode()).hexdigest()
    return f"{name[: _LONGEST_NAME - len(digest) - 1]}-{digest}"


def unresolved_assets(sites: Path) -> list[str] | None:
    """Return the names in ``assets/assets.json`` whose file is not there; None: there is no usable map."""
    try:
        names = json.loads(files.read(sites / "assets" / "assets.json"))
    except (OSError, ValueError):
        return None
    if not isinstance(names, dict) or not names:
        return None
    return [name for name, path in names.items() if not (sites / str(path).lstrip("/")).is_file()]


def forget_assets(sites: Path, names: Sequence[str]) -> None:
    """Take those of ``names`` out of ``assets/assets.json`` whose file is still not there."""
    stale = set(names) & set(unresolved_assets(sites) or [])
    if stale:
        path = sites / "assets" / "assets.json"
        kept = {name: value for name, value in json.loads(files.read(path)).items() if name not in stale}
        files.replace(path, json.dumps(kept, indent=4))
