"""What the image brings: its apps, its fingerprint, and the file names that carry a revision."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from frappe_bootstrap import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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


def fingerprint(bench: Path) -> str:
    """Return a revision computed from each app's version, patches and document types."""
    digest = hashlib.sha256()
    for path in _schema_files(bench):
        digest.update(f"{path.relative_to(bench)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"image-{digest.hexdigest()[:16]}"


def _schema_files(bench: Path) -> Iterator[Path]:
    for app in apps(bench):
        package = bench / "apps" / app / app
        for name in ("__init__.py", "patches.txt"):
            if (package / name).is_file():
                yield package / name
        yield from sorted(path for path in package.rglob("doctype/*/*.json") if path.stem == path.parent.name)


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
