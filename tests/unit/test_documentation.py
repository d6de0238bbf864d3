"""What the documentation shows is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import coordinate

README = Path(__file__).parents[2] / "README.md"
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(coordinate.__path__, "coordinate.")
    if not name.endswith("__main__") and ">>> " in Path(str(importlib.util.find_spec(name).origin)).read_text()
)


def test_there_are_examples() -> None:
    """Else the next test proves nothing."""
    assert {"coordinate.coordinator", "coordinate.lease", "coordinate.process"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, and with the results that they show."""
    monkeypatch.setenv("COORDINATE_URL", "memory://documentation")
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed


def test_python_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a store in memory."""
    monkeypatch.setenv("COORDINATE_URL", "memory://readme")
    snippets = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, str(README), "exec"), {"__name__": "readme"})  # noqa: S102 -- our own page
    assert "migrating" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "count"), [("hazard", 39), ("point", 30), ("pain", 30)])
def test_every_hazard_point_and_pain_has_its_line(kind: str, count: int) -> None:
    """What prevents it, or why it is out of scope; tests that are named exist."""
    root = README.parent
    page = (root / "docs" / "reference" / "hazards.md").read_text()
    lines = re.findall(rf"^\| {kind} (\d+) \| (.+?) \|", page, re.MULTILINE)
    assert [int(number) for number, _ in lines] == list(range(1, count + 1))
    sources = "".join(path.read_text() for path in sorted((root / "tests").rglob("test_*.py")))
    missing = [name for name in re.findall(r"\btest_\w+(?=`)", page) if f"def {name}(" not in sources]
    assert [name for name in missing if not list((root / "tests").rglob(f"{name}.py"))] == []
    if kind != "pain":
        # Each that is in the program's scope is named by the test that would fail without what prevents it.
        quoted = re.findall(rf"{kind}s? ((?:\d+(?:, | and )?)+)", sources, re.IGNORECASE)
        quoted += re.findall(r"operating-frappe ((?:\d+(?:, | and )?)+)", sources) if kind == "point" else []
        named = {int(number) for text in quoted for number in re.findall(r"\d+", text)}
        foreign = {int(number) for number, why in lines if why.startswith("out of scope of the program")}
        assert set(range(1, count + 1)) - named == foreign


def test_the_guide_for_plugins_shows_what_the_template_has() -> None:
    """Each piece of Python and TOML in it stands in a file of the template, word for word."""
    root = README.parent
    guide = (root / "docs" / "how-to" / "write-a-plugin.md").read_text()
    template = root / "examples" / "plugin_template"
    sources = [path.read_text() for kind in ("*.py", "*.toml") for path in template.rglob(kind)]
    pieces = re.findall(r"^```(?:python|toml)\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert len(pieces) == 5
    for piece in pieces:
        assert any(piece in source for source in sources), piece
