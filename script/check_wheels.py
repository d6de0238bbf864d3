"""Build the wheels, install them into clean environments in every combination, and look at them as a user would.

    python script/check_wheels.py FOLDER

Needs hatchling. Nothing of the checkout is on the path of a clean environment: what a wheel lacks shows. Last, the
plugin template is built and installed as a stranger would, and its own tests are run.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "examples" / "plugin_template"


class Plugin(NamedTuple):
    """A plugin of this repository: its folder and its schemes."""

    folder: Path
    schemes: tuple[str, ...]


PLUGINS = (
    Plugin(ROOT / "plugins" / "filelock", ("file",)),
    Plugin(ROOT / "plugins" / "etcd", ("etcd", "etcds")),
    Plugin(ROOT / "plugins" / "zookeeper", ("zk", "zookeeper")),
)
BUILT_IN = ("memory", "redis")

_LOOK = """
import importlib.metadata, pathlib, sys
import coordinate
from coordinate._plugins import backend_class, installed
from coordinate.errors import PluginError

there, absent = (set(filter(None, word.split(","))) for word in sys.argv[1:3])
home = pathlib.Path(coordinate.__file__)
assert home.is_relative_to(sys.prefix), f"imported from {home}"
for scheme in there:
    found = backend_class(scheme)
    assert scheme in found.schemes, found
for scheme in absent:
    try:
        backend_class(scheme)
    except PluginError as error:
        assert "pip install coordinate-" in str(error), error
    else:
        raise AssertionError(f"{scheme} is there")
usable = {row.scheme for row in installed() if row.usable}
assert there <= usable and not absent & usable, usable
assert importlib.metadata.version("coordinate-core") == coordinate.__version__
"""
_BROKEN = """
raise RuntimeError("this plugin is broken")
"""


def build(project: Path, folder: Path) -> Path:
    """Return a project's wheel, built into a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    before = set(folder.glob("*.whl"))
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def same_files(project: Path, wheel: Path) -> None:
    """Check that what the source tree has besides Python is in the wheel, too."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    source = project / "src"
    names = {str(path.relative_to(source)) for kind in ("*.lua", "py.typed") for path in source.rglob(kind)}
    if lost := names - packed:
        sys.exit(f"{wheel.name} lacks {', '.join(sorted(lost))}")


class Clean:
    """An environment with the third-party packages of another one, and of ours only what is installed into it."""

    def __init__(self, folder: Path, packages: Path) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "third_party.pth").write_text(f"{packages}\n")

    def install(self, *wheels: Path) -> None:
        """Install wheels by their files: an index can never be asked for our names."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--disable-pip-version-check", *wheels], check=True)

    def run(self, *arguments: str | Path) -> None:
        """Run its Python, far from the checkout."""
        subprocess.run([self.python, "-I", *arguments], cwd=self.python.parent, check=True)


def third_party(folder: Path, wheels: list[Path]) -> Path:
    """Return a folder with everything that the wheels need, and pytest, but nothing of ours."""
    packages = folder / "third_party"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", packages]
    subprocess.run([*pip, "--find-links", folder, *wheels, "pytest>=8"], check=True)
    for path in (*packages.glob("coordinate*"), *packages.glob("frappe_bootstrap*")):
        shutil.rmtree(path)
    return packages


def broken(folder: Path) -> Path:
    """Return the wheel of a plugin that cannot be imported."""
    project = folder / "broken"
    (project / "src" / "broken_plugin").mkdir(parents=True)
    (project / "src" / "broken_plugin" / "__init__.py").write_text(_BROKEN)
    text = (TEMPLATE / "pyproject.toml").read_text()
    text = text.replace("coordinate_sqlite", "broken_plugin").replace("coordinate-sqlite", "broken-plugin")
    (project / "pyproject.toml").write_text(text.replace("sqlite =", "broken ="))
    (project / "README.md").write_text("Broken on purpose.\n")
    return build(project, folder)


def main() -> None:
    """Build, install, look; any failure ends the program with an error."""
    folder = Path(sys.argv[1]).resolve() / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    core = build(ROOT, folder)
    same_files(ROOT, core)
    ours = {plugin: build(plugin.folder, folder) for plugin in PLUGINS}
    for plugin, wheel in ours.items():
        same_files(plugin.folder, wheel)
    packages = third_party(folder, [core, *ours.values()])
    bad = broken(folder)
    counts = range(len(PLUGINS) + 1)
    for subset in itertools.chain.from_iterable(itertools.combinations(PLUGINS, count) for count in counts):
        name = "-".join(plugin.folder.name for plugin in subset) or "core"
        clean = Clean(folder / f"env-{name}", packages)
        # The broken one is in every environment: it takes nobody with it.
        clean.install(core, bad, *(ours[plugin] for plugin in subset))
        there = [*BUILT_IN, *(scheme for plugin in subset for scheme in plugin.schemes)]
        absent = [scheme for plugin in PLUGINS if plugin not in subset for scheme in plugin.schemes]
        clean.run("-c", _LOOK, ",".join(there), ",".join(absent))
        print(f"core and {name}: {', '.join(there)}")
    for command in (("coordinate", "backends"), ("coordinate", "--help"), ("frappe-bootstrap", "--help")):
        program = folder / "env-filelock-etcd-zookeeper" / "bin" / command[0]
        subprocess.run([program, *command[1:]], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    stranger = Clean(folder / "env-stranger", packages)
    stranger.install(core, build(TEMPLATE, folder))
    # With its settings but without its source: what is tested is the wheel.
    theirs = shutil.copytree(TEMPLATE, folder / "template", ignore=shutil.ignore_patterns("src", "__pycache__"))
    stranger.run("-m", "pytest", "-q", "-p", "no:cacheprovider", theirs / "tests")
    print(f"{len(ours) + 1} wheels install and work in {2 ** len(PLUGINS)} combinations; so does the plugin template")


if __name__ == "__main__":
    main()
