"""The quick look for plugins says what the standard library says, or leaves the answer to it."""

from __future__ import annotations

import importlib.metadata
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from coordinate import _entry_points
from coordinate._entry_points import GROUP, Plugin

if TYPE_CHECKING:
    from pathlib import Path

DECLARATION = f"""
[console_scripts]
odd = somebody:main

[{GROUP}]
# the scheme, and the module
odd = odd_plugin
even=even_plugin:Backends.all
"""


def distribution(folder: Path, name: str, text: str | None = DECLARATION, file: str = "METADATA") -> None:
    """Write what an installer writes."""
    info = folder / name
    info.mkdir(parents=True)
    (info / file).write_text(f"Metadata-Version: 2.1\nName: {name.partition('-')[0]}\nVersion: 1.0\n")
    if text is not None:
        (info / "entry_points.txt").write_text(text)


def told(name: str) -> set[tuple[str, str]]:
    """Return the names and values that the authority knows."""
    return {(entry.name, entry.value) for entry in importlib.metadata.entry_points(group=GROUP, name=name)}


def found(name: str) -> set[tuple[str, str]]:
    """Return the names and values that are found."""
    return {(plugin.name, plugin.value) for plugin in _entry_points.find(name)}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put two folders in front of what is installed, one of them not there."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), str(tmp_path / "other"), *sys.path])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not _entry_points._is_foreign(finder)])
    (tmp_path / "site").mkdir()
    return tmp_path


@pytest.mark.parametrize("info", ["odd_plugin-1.0.dist-info", "odd.plugin-1.0.egg-info", "odd.egg-info"])
@pytest.mark.parametrize("name", ["odd", "even"])
def test_one_plain_installation_is_found_without_help(path: Path, info: str, name: str) -> None:
    """Wheels, editable installations and the folders of older tools look alike."""
    distribution(path / "site", info)
    quick = _entry_points._look(name)
    assert quick is not None
    assert {(quick.name, quick.value)} == found(name) == told(name)


def test_what_is_installed_here_is_found_without_help() -> None:
    """This is the case that the look is for: our own plugin, in editable form."""
    quick = _entry_points._look("file")
    assert quick is not None
    assert {(quick.name, quick.value)} == told("file")
    assert hasattr(quick.load(), "coordinate_backends")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(("a-1.0.dist-info", DECLARATION), ("b-1.0.dist-info", DECLARATION), id="two claims"),
        pytest.param(("a-1.0.dist-info", None), ("A-2.0.dist-info", DECLARATION), id="hidden by a namesake"),
        pytest.param(("x.y-1.0.dist-info", "[other]\n"), ("X__y-2.0.egg-info", DECLARATION), id="another spelling"),
        pytest.param(("a-1.0.dist-info", f"[{GROUP}]\nodd = odd [extra]\n"), ("b-1.0.dist-info", None), id="extras"),
        pytest.param(("a-1.0.DIST-INFO", DECLARATION), ("b-1.0.dist-info", None), id="unusual case"),
        pytest.param(("a-1.0.dist-info", f"# {GROUP}\n[other]\nodd = x\n"), ("b-1.0.dist-info", ""), id="none"),
    ],
)
def test_doubt_is_left_to_the_authority(
    path: Path, first: tuple[str, str | None], second: tuple[str, str | None]
) -> None:
    """Whatever is not exactly one undisputed claim is not decided here."""
    distribution(path / "site", *first)
    distribution(path / "other", *second)
    assert _entry_points._look("odd") is None
    assert found("odd") == told("odd")


def test_an_archive_on_the_path_is_left_to_the_authority(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution in a zip file counts as well."""
    distribution(path / "site", "a-1.0.dist-info")
    with zipfile.ZipFile(path / "more.zip", "w") as archive:
        archive.writestr("b-1.0.dist-info/METADATA", "Name: b\nVersion: 1.0\n")
        archive.writestr("b-1.0.dist-info/entry_points.txt", f"[{GROUP}]\nodd = zipped\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(path / "more.zip")])
    assert _entry_points._look("odd") is None
    assert found("odd") == told("odd") == {("odd", "odd_plugin"), ("odd", "zipped")}


def test_finders_of_others_are_left_to_the_authority(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may bring distributions from anywhere."""

    class Finder(importlib.metadata.DistributionFinder):
        """Knows one more distribution."""

        def find_distributions(
            self,
            context: importlib.metadata.DistributionFinder.Context | None = None,  # noqa: ARG002 -- the protocol's
        ) -> list[importlib.metadata.Distribution]:
            """Return it."""
            return [importlib.metadata.Distribution.at(path / "elsewhere" / "b-1.0.dist-info")]

    distribution(path / "site", "a-1.0.dist-info")
    distribution(path / "elsewhere", "b-1.0.dist-info", f"[{GROUP}]\nodd = foreign\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert _entry_points._look("odd") is None
    assert found("odd") == told("odd") == {("odd", "odd_plugin"), ("odd", "foreign")}


def test_a_file_that_cannot_be_read_is_left_to_the_authority(path: Path) -> None:
    """Neither is a broken neighbour overlooked nor does it end the look in another way than usual."""
    distribution(path / "site", "a-1.0.dist-info")
    distribution(path / "site", "b-1.0.dist-info", "")
    (path / "site" / "b-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff")
    assert _entry_points._look("odd") is None
    with pytest.raises(UnicodeDecodeError):
        told("odd")


@pytest.mark.parametrize("value", ["os", "os:path", "os:path.join", "os : path.join [extra]"])
def test_values_load_as_everywhere(value: str) -> None:
    """A module, or something in it."""
    assert Plugin("x", value).load() is importlib.metadata.EntryPoint("x", value, GROUP).load()
