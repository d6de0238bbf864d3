"""The judge of fleets: it sees what it is there to see, and nothing in a run that kept all promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate.testing import FakeClock, History, oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Story:
    """A history in which every line comes a second after the one before."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.history = History(path, "one", self.clock)

    def tell(self, act: Callable[..., None], *arguments: object) -> None:
        """Add a fact."""
        act(*arguments)
        self.clock.advance(1.0)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """Return a story without facts."""
    return Story(tmp_path / "history")


def good(story: Story) -> None:
    """Tell two terms in which everything went well."""
    history = story.history
    for token, state in ((3, "in progress"), (4, "done")):
        story.tell(history.claimed, "site", token)
        story.tell(history.recorded, "site", "migrate", "r1", state, token)
        story.tell(history.tenure, "site", token, 10.0 * token, 10.0 * token + 10.0)


def test_a_run_that_kept_all_promises_has_no_violation(story: Story) -> None:
    """Also after a reset, with other names, and with a last line that was cut off by a kill."""
    good(story)
    story.tell(story.history.reset, "site", "migrate", "r1")
    story.tell(story.history.recorded, "site", "migrate", "r1", "in progress", 4)
    story.tell(story.history.recorded, "site", "migrate", "r1", "done", 4)
    story.tell(story.history.tenure, "other", 1, 31.0, 99.0)
    with story.history.path.open("a") as file:
        file.write('{"t": 1, "what": "ten')
    assert len(story.history.facts()) == 10
    assert oracle.violations(story.history.facts()) == []


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("tenure", ("site", 5, 49.9, 60.0), "both held site"),
        ("tenure", ("site", 4, 50.0, 60.0), "site: token 4 after 4"),
        ("tenure", ("site", 2, 70.0, 80.0), "site: token 2 after 4"),
        ("claimed", ("site", 4), "claim of site: token 4 after 4"),
        ("recorded", ("site", "migrate", "r1", "done", 4), "done twice"),
        ("recorded", ("site", "migrate", "r1", "in progress", 5), "went back"),
        ("recorded", ("site", "migrate", "r1", "failed", 3), "went back"),
    ],
)
def test_each_broken_promise_is_named(story: Story, kind: str, arguments: tuple[str | float, ...], words: str) -> None:
    """One line too many, and it is told."""
    good(story)
    story.tell(getattr(story.history, kind), *arguments)
    assert any(words in found for found in oracle.violations(story.history.facts()))


def test_a_tenure_inside_a_longer_one_is_seen_behind_a_short_one(story: Story) -> None:
    """The comparison is with the longest so far, not with the neighbour."""
    for token, since, until in ((1, 0.0, 9.0), (2, 10.0, 11.0), (3, 8.0, 8.5)):
        story.history.tenure("site", token, since, until)
    assert len(oracle.overlaps(oracle.tenures(story.history.facts()))) == 1
