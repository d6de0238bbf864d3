"""build: bundles in the apps' own trees, absolute links and one shared map of names on the volume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from frappe import cache, knobs, sites
from frappe.locks import filelock

if TYPE_CHECKING:
    from collections.abc import Iterator

# Three shells deep, like yarn and its bundler. It waits for a line on a pipe whose other end it holds
# too, so it outlives a killed parent, as the real tree does; the time limit is for forgotten ones.
_TREE = "sh -c 'timeout --foreground 60 sh -c \"read line; :\"; :'; :"


@contextlib.contextmanager
def _bundler() -> Iterator[None]:
    """Run the tree of child processes around the bundling."""
    reading, writing = os.pipe()
    try:
        tree = subprocess.Popen(["/bin/sh", "-c", _TREE], stdin=reading, pass_fds=(writing,))
        yield
        os.write(writing, b"done\n")
        tree.wait()
    finally:
        os.close(reading)
        os.close(writing)


def _bundle(app: str, public: Path) -> dict[str, str]:
    """Write the bundles; a CSS name differs on every build of the same source, a JS name does not."""
    dist = public / "dist"
    dist.mkdir(exist_ok=True)
    names = {}
    for source in sorted([*public.glob("*.css"), *public.glob("*.js")]):
        content = source.read_bytes()
        digest = secrets.token_hex(4) if source.suffix == ".css" else hashlib.sha256(content).hexdigest()[:8]
        bundle = dist / f"{source.stem}.bundle.{digest.upper()}{source.suffix}"
        bundle.write_bytes(content)
        names[f"{source.stem}.bundle{source.suffix}"] = f"/assets/{app}/dist/{bundle.name}"
    return names


def _place(app: str, public: Path, *, copy: bool) -> None:
    """Put an app's public folder on the volume: an absolute link, or with --hard-link in fact a copy."""
    target = sites.SITES / "assets" / app
    target.parent.mkdir(exist_ok=True)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    if copy:
        shutil.copytree(public, target)
    else:
        target.symlink_to(public)


def _write_map(path: Path, names: dict[str, str]) -> None:
    """Merge into the map of names, in place: for an instant it is empty."""
    known = json.loads(path.read_text() or "{}") if path.exists() else {}
    with path.open("w") as file:
        knobs.point("build:empty_json", path.name)
        knobs.nap(0.1)
        file.write(json.dumps(known | names, indent=4))


def build(wanted: list[str], *, hard_link: bool) -> None:
    """Build the assets of some apps, or of all; needs neither database nor Redis."""
    apps = sites.apps_of_bench()
    knobs.point("build:begin")
    with filelock(sites.BENCH / "config", "bench_build"):
        unknown = [app for app in wanted if app not in apps]
        if unknown:
            message = f"Cannot find app {unknown[0]}\nerror Command failed with exit code 143."
            raise sites.CommandError(message)
        names: dict[str, str] = {}
        publics = {app: Path(str(sites.app_module(app).__file__)).parent / "public" for app in wanted or apps}
        with _bundler():
            knobs.nap(25)
            for public in publics.values():
                shutil.rmtree(public / "dist", ignore_errors=True)
            knobs.point("build:bundles")
            knobs.nap(2)
            for app, public in publics.items():
                names |= _bundle(app, public)
                _place(app, public, copy=hard_link)
        (sites.SITES / "assets" / "locale").mkdir(exist_ok=True)
        _write_map(sites.SITES / "assets" / "assets.json", names)
        rtl = {f"rtl_{name}": path for name, path in names.items() if name.endswith(".css")}
        _write_map(sites.SITES / "assets" / "assets-rtl.json", rtl)
    if cache.ask(sites.common_config(), "redis_cache", "DEL", "assets_json") is None:
        print("Cannot connect to redis_cache to update assets_json")
    knobs.point("build:end")
    print("DONE  Total Build Time")
