"""The kit proves itself: each deliberately broken store is caught by the test that is there for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.conformance import broken_stores
from tests.conformance.broken_stores import CAUGHT_BY, OUTAGE_CAUGHT_BY

FILE = Path(broken_stores.__file__)
ROOT = FILE.parents[2]
WANTED = {f"Test{kind.__name__}": test for kind, test in (CAUGHT_BY | OUTAGE_CAUGHT_BY).items()}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Run the controls whole and of each broken store the test that has to fail; return all outcomes."""
    report = tmp_path_factory.mktemp("kit") / "report.xml"
    tests = [f"{FILE}::TestSound", f"{FILE}::TestCut", *(f"{FILE}::{kind}::{test}" for kind, test in WANTED.items())]
    options = ["-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider", "-q", "--tb=no", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 -- written by our own child
        outcome = next((child.tag for child in case if child.tag in {"failure", "error", "skipped"}), "passed")
        found[case.attrib["classname"].rpartition(".")[2], case.attrib["name"]] = outcome
    return found


@pytest.mark.parametrize("kind", sorted(WANTED))
def test_each_broken_store_is_caught(outcomes: dict[tuple[str, str], str], kind: str) -> None:
    """By an assertion, not by an accident in a fixture."""
    assert outcomes[kind, WANTED[kind]] == "failure"


def test_sound_stores_pass_everything(outcomes: dict[tuple[str, str], str]) -> None:
    """With the same short patience; nothing was skipped."""
    sound = {key: outcome for key, outcome in outcomes.items() if key[0] in {"TestSound", "TestCut"}}
    assert len(sound) >= 75
    assert {key for key, outcome in sound.items() if outcome != "passed"} == set()


def test_there_are_enough_of_them() -> None:
    """More than twenty ways to break a store."""
    assert len(WANTED) >= 40
