"""Build the wheels, install them into a clean environment, and look at them as a user would.

    python script/check_wheels.py FOLDER

Needs hatchling. Nothing of the checkout is on the path of the clean environment: what a wheel lacks shows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = (ROOT, ROOT / "plugins" / "filelock", ROOT / "plugins" / "etcd", ROOT / "plugins" / "zookeeper")

_LOOK = """
import importlib.metadata, pathlib, sys
import coordinate
from coordinate._plugins import backend_class, installed

home = pathlib.Path(coordinate.__file__)
assert home.is_relative_to(sys.prefix), f"imported from {home}"
for scheme in ("etcd", "etcds", "file", "memory", "redis", "zk", "zookeeper"):
    found = backend_class(scheme)
    assert scheme in found.schemes, found
    print(f"{scheme}:// {found.__module__}.{found.__name__}")
usable = {row.scheme for row in installed() if row.usable}
assert {"etcd", "etcds", "file", "memory", "redis", "zk", "zookeeper"} <= usable
assert importlib.metadata.version("coordinate-core") == coordinate.__version__
"""


def build(folder: Path) -> list[Path]:
    """Return the wheels of all projects, built into a folder."""
    for project in PROJECTS:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=project, check=True)
    return sorted(folder.glob("*.whl"))


def same_files(wheel: Path) -> None:
    """Check that what the source tree has besides Python is in the wheel, too."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    for project in PROJECTS:
        source = project / "src"
        names = {str(path.relative_to(source)) for kind in ("*.lua", "py.typed") for path in source.rglob(kind)}
        packages = {name.partition("/")[0] for name in packed}
        lost = {name for name in names if name.partition("/")[0] in packages} - packed
        if lost:
            sys.exit(f"{wheel.name} lacks {', '.join(sorted(lost))}")


def main() -> None:
    """Build, install, look; any failure ends the program with an error."""
    folder = Path(sys.argv[1]).resolve() / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels = build(folder)
    for wheel in wheels:
        same_files(wheel)
    clean = folder / "clean"
    venv.create(clean, with_pip=True)
    python = clean / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The files themselves, not their names: an index can never be asked for them.
    subprocess.run([*install, "--find-links", folder, *wheels], check=True)
    subprocess.run([python, "-I", "-c", _LOOK], cwd=folder, check=True)
    for command in (("coordinate", "backends"), ("coordinate", "--help"), ("frappe-bootstrap", "--help")):
        subprocess.run([clean / "bin" / command[0], *command[1:]], cwd=folder, check=True)
    print(f"{len(wheels)} wheels install and work: {', '.join(wheel.name for wheel in wheels)}")


if __name__ == "__main__":
    main()
