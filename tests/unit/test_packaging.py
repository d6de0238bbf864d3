"""What the distributions say about themselves, and that it is true."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coordinate import __version__
from coordinate._plugins import BUILT_IN, OFFICIAL

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
GROUP = "coordinate.backends"


def pyproject(folder: Path) -> dict[str, Any]:
    """Return the project file of a folder."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_have_the_version_of_the_core(plugin: Path) -> None:
    """They are released in lockstep."""
    assert pyproject(plugin)["project"]["version"] == __version__
    assert importlib.metadata.version(pyproject(plugin)["project"]["name"]) == __version__


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_accept_no_foreign_core(plugin: Path) -> None:
    """The bounds keep out strangers and the next major version."""
    major = int(__version__.partition(".")[0])
    assert f"coordinate-core>={major}.0,<{major + 1}" in pyproject(plugin)["project"]["dependencies"]


def test_every_official_scheme_has_its_plugin() -> None:
    """The name that an error message tells people to install exists."""
    found = {}
    for plugin in PLUGINS:
        project = pyproject(plugin)["project"]
        found |= dict.fromkeys(project["entry-points"][GROUP], project["name"])
    assert found == OFFICIAL
    assert not set(found) & set(BUILT_IN)


@pytest.mark.parametrize("scheme", sorted(OFFICIAL))
def test_entry_points_are_installed_and_load(scheme: str) -> None:
    """Found by name, as at run time."""
    (entry,) = importlib.metadata.entry_points(group=GROUP, name=scheme)
    assert hasattr(entry.load(), "coordinate_backends")


@pytest.mark.parametrize("script", ["coordinate", "frappe-bootstrap"])
def test_commands_lead_somewhere(script: str) -> None:
    """Each console script names a function."""
    target = pyproject(ROOT)["project"]["scripts"][script]
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda path: path.name)
def test_wheels_take_whole_packages_with_everything_in_them(folder: Path) -> None:
    """What lies in a package is in the wheel."""
    wheel = pyproject(folder)["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel) == {"packages"}, "an exclude or only-include may lose a file"
    packages = {folder / package for package in wheel["packages"]}
    assert packages == {path.parent for path in (folder / "src").glob("*/__init__.py")}


def test_server_side_scripts_lie_inside_a_package_and_are_not_ignored() -> None:
    """Lua files travel with their package."""
    scripts = list((ROOT / "src").rglob("*.lua"))
    assert scripts
    assert all((script.parent / "__init__.py").exists() or script.parent.name == "lua" for script in scripts)
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8")
    assert "lua" not in ignored


def test_the_core_tells_type_checkers_that_it_is_typed() -> None:
    """The mark of PEP 561 is there."""
    for folder in (ROOT, *PLUGINS):
        for package in (folder / "src").glob("*/__init__.py"):
            if folder == ROOT:
                assert (package.parent / "py.typed").exists()


def test_the_source_distribution_takes_no_plugin_and_no_test() -> None:
    """Without the list, all of the repository would be in it."""
    included = pyproject(ROOT)["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert included == ["/src", "/README.md", "/LICENSE"]
