"""A plugin that is outdated, broken or in doubt has a clear error of its own, and takes nobody with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from coordinate import _entry_points, _plugins, connect
from coordinate.backend import PLUGIN_API
from coordinate.cli import main
from coordinate.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = """
from coordinate.backends.memory import MemoryBackend
from coordinate.hookspecs import hookimpl
class Mine(MemoryBackend):
    schemes = ("{scheme}",)
    plugin_api = {api}
@hookimpl
def coordinate_backends():
    return [Mine]
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, scheme: str, *, source: str = GOOD, api: int = PLUGIN_API, distribution: str = "") -> None:
        """Write what an installer would."""
        name = distribution or f"plugin_{scheme}"
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{_entry_points.GROUP}]\n{scheme} = {name}\n")
        (self.folder / f"{name}.py").write_text(source.format(scheme=scheme, api=api) if source is GOOD else source)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site with a plugin that is fine; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    site = Site(tmp_path)
    site.install("fine")
    yield site
    # Nothing else: libraries in C do not bear to be imported twice.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


FAULTS = {
    "import": ("raise RuntimeError('no such library')", "cannot be loaded: RuntimeError: no such library"),
    "exit": ("import nothing_of_that_name", "nothing_of_that_name"),
    "empty": ("", "does not answer to odd://"),
}


@pytest.mark.parametrize(("source", "words"), [FAULTS["import"], FAULTS["exit"], FAULTS["empty"]])
def test_a_plugin_that_fails_leaves_the_others_usable(site: Site, source: str, words: str) -> None:
    """Whatever it does at its import, or does not do."""
    site.install("odd", source=source or "# nothing\n")
    with pytest.raises(PluginError, match=words):
        connect("odd://")
    connect("fine://").close()


@pytest.mark.parametrize(("api", "fix"), [(PLUGIN_API - 1, "plugin-odd"), (PLUGIN_API + 1, "coordinate-core")])
def test_another_plugin_api_names_what_to_update(site: Site, api: int, fix: str) -> None:
    """The plugin if it is behind, ourselves if it is ahead."""
    site.install("odd", api=api)
    with pytest.raises(PluginError, match=f"plugin API {api}.*pip install --upgrade {fix}"):
        connect("odd://")
    connect("fine://").close()


def test_two_plugins_for_one_scheme_are_both_named(site: Site) -> None:
    """Neither is chosen by chance."""
    site.install("odd", distribution="first")
    site.install("odd", distribution="second")
    with pytest.raises(PluginError, match=r"more than one plugin \(first, second\)"):
        connect("odd://")
    connect("fine://").close()


def test_the_list_of_stores_shows_each_with_its_fault(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """And ends well."""
    site.install("old", api=PLUGIN_API - 1)
    site.install("odd", source="raise RuntimeError('no such library')")
    with pytest.raises(SystemExit) as ended:
        main(["backends"])
    assert ended.value.code == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "usable" in rows["fine"]
    assert "broken" in rows["old"]
    assert "pip install --upgrade plugin-old" in rows["old"]
    assert "no such library" in rows["odd"]
    assert _plugins.fault("fine") == ""
