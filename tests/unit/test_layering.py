"""The layers of the package: who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import coordinate

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PLUGINS = sorted((ROOT / "plugins").glob("*/src"))

LAYERS = (
    ("values", "errors types events _alarm _clock _identity _names _wire _version"),
    ("port", "backend polling url"),
    ("backends", "backends"),
    ("entry", "config hookspecs _plugins _entry_points"),
    ("core", "lease _holding _cohort _contest _keeper marker _waiting process _orders _guard _supervise _pulse"),
    ("top", "coordinator steps _plan _leading _following _report _doctor _logs cli __main__ aio testing"),
)
RANK = {module: rank for rank, (_, modules) in enumerate(LAYERS) for module in modules.split()}


class Import(NamedTuple):
    """One imported thing: the module, and the name taken from it ("" for the module itself)."""

    module: str
    name: str
    line: int


def modules_of(source: Path, package: str) -> list[tuple[str, Path]]:
    """Return the dotted names and files of a package."""
    found = []
    for path in sorted((source / package).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(path: Path) -> Iterator[Import]:
    """Yield every import of a file, also those in functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (_resolved(node.module or "", alias.name, node.lineno) for alias in node.names)


def _resolved(module: str, name: str, line: int) -> Import:
    """Take ``from package import module`` for an import of that module."""
    inner = SOURCE.joinpath(*module.split("."), name)
    if inner.with_suffix(".py").exists() or (inner / "__init__.py").exists():
        return Import(f"{module}.{name}", "", line)
    return Import(module, name, line)


def part_of(module: str) -> str:
    """Return the part of `coordinate` that decides about the layer: its first segment."""
    return module.split(".")[1] if "." in module else ""


COORDINATE = modules_of(SOURCE, "coordinate")
BOOTSTRAP = modules_of(SOURCE, "frappe_bootstrap")
BACKENDS = [(name, path) for name, path in COORDINATE if part_of(name) == "backends"]
STORES = BACKENDS + [
    module for source in PLUGINS for package in sorted(source.iterdir()) for module in modules_of(source, package.name)
]


def test_every_module_belongs_to_a_layer() -> None:
    """A new module has to be given a place."""
    assert {part_of(name) for name, _ in COORDINATE} - {""} <= set(RANK)


# The front door names everything and loads nothing.
INSIDE = [(name, path) for name, path in COORDINATE if name != "coordinate"]


@pytest.mark.parametrize(("name", "path"), INSIDE, ids=[name for name, _ in INSIDE])
def test_lower_layers_never_import_higher_ones(name: str, path: Path) -> None:
    """Neither at run time nor for types."""
    for found in imports(path):
        package = found.module.split(".")[0]
        assert package != "frappe_bootstrap", f"{path}:{found.line}"
        if package == "coordinate":
            other = part_of(found.module)
            assert other, f"{path}:{found.line}: modules import modules, not the front door"
            assert RANK[other] <= RANK[part_of(name)], f"{path}:{found.line}: {name} must not know {found.module}"


@pytest.mark.parametrize(("name", "path"), COORDINATE, ids=[name for name, _ in COORDINATE])
def test_concrete_stores_are_known_to_themselves_only(name: str, path: Path) -> None:
    """Everybody else reaches a store through its URL."""
    if part_of(name) in {"backends", "testing"}:
        return
    for found in imports(path):
        assert not found.module.startswith("coordinate.backends"), f"{path}:{found.line}"
        assert found.module.split(".")[0] not in {"redis", "filelock", "etcd3", "grpc"}, f"{path}:{found.line}"


@pytest.mark.parametrize(("name", "path"), STORES, ids=[name for name, _ in STORES])
def test_stores_neither_sleep_nor_roll_dice(name: str, path: Path) -> None:
    """Time and chance are policy, and policy lives in the core."""
    for found in imports(path):
        assert found.module != "random", f"{path}:{found.line}: {name}"
        assert (found.module, found.name) != ("time", "sleep"), f"{path}:{found.line}: {name}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("time", "sleep"), f"{path}:{node.lineno}: {name}"


BLOCKED = {"coordinate_etcd.watch", "coordinate.backends.redis.dialling"}
"""Modules that have to wait for what has no time limit and cannot be stopped: a stream that a library hands to nobody
but a thread that blocks on it, the look-up of a host name. They do nothing else in it."""


@pytest.mark.parametrize(("name", "path"), STORES, ids=[name for name, _ in STORES])
def test_stores_start_no_threads(name: str, path: Path) -> None:
    """Threads belong to the core; locks and conditions are fine."""
    if name in BLOCKED:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"Thread", "Timer"}, f"{path}:{node.lineno}: {name}"
    starters = {"Thread", "Timer", "ThreadPoolExecutor"}
    assert not [found for found in imports(path) if found.name in starters or found.module == "concurrent.futures"]


@pytest.mark.parametrize(("name", "path"), BOOTSTRAP, ids=[name for name, _ in BOOTSTRAP])
def test_frappe_bootstrap_uses_public_names_only(name: str, path: Path) -> None:
    """It could be split out in a day."""
    for found in imports(path):
        words = found.module.split(".")
        if words[0] != "coordinate":
            continue
        private = [word for word in [*words, found.name] if word.startswith("_")]
        assert not private, f"{path}:{found.line}: {name} uses {found.module} {found.name}"
        if words == ["coordinate"] and found.name:
            assert found.name in coordinate.__all__, f"{path}:{found.line}"


LIBRARIES = {"redis", "filelock", "etcd3", "grpc", "click", "pluggy", "msgspec", "coordinate_filelock"}
HEAVY = {"importlib.metadata", "email", "zipfile", "tempfile", "subprocess", "asyncio", "ssl", "ctypes", "http"}
"""Modules of the standard library that cost milliseconds each, and that no lease on files needs."""


def loaded_by(program: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded at the end of a program."""
    command = [sys.executable, "-I", "-c", f"{program}; import sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_no_library() -> None:
    """A program that only names the package pays for nothing."""
    loaded = loaded_by("import coordinate") - loaded_by("pass")
    assert not loaded & (LIBRARIES | HEAVY | {"logging", "pathlib", "urllib", "inspect", "dataclasses"})
    assert {name for name in loaded if name.startswith("coordinate")} == {"coordinate", "coordinate._version"}


def test_a_lease_on_files_loads_only_what_it_needs(tmp_path: Path) -> None:
    """No other store, nothing for markers, commands and waiting, none of the standard library's heavyweights."""
    program = f"import coordinate; coordinate.connect('file://{tmp_path}').lease('quick').acquire()"
    loaded = loaded_by(program) - loaded_by("import filelock, msgspec, pluggy")
    assert "coordinate_filelock.leases" in loaded
    assert not loaded & (HEAVY | LIBRARIES - {"coordinate_filelock"})
    unused = {"coordinate.marker", "coordinate.steps", "coordinate.process", "coordinate._supervise"}
    assert not loaded & (unused | {"coordinate_filelock.markers", "coordinate_filelock.watch"})
    assert not [name for name in loaded if name.startswith("coordinate.backends")]
