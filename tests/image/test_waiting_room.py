"""The waiting room as a person meets it, in a browser: while a container waits, while it leads, after a failure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from coordinate.testing import eventually
from tests.image import engine
from tests.image.browser import NARROW, WIDE, Page, browser, without_scripts
from tests.image.replicas import CANARIES, Replica

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

    from tests.image.replicas import Volume

READABLE = 4.5
"""The contrast that WCAG 2 wants for text, level AA."""
LOOKS = [(WIDE, False), (WIDE, True), (NARROW, False), (NARROW, True)]


@pytest.fixture
def chromium() -> Iterator[Chrome]:
    """Return a browser."""
    with browser() as driver:
        yield driver


def _examine(page: Page, name: str) -> None:
    """Ask what every state of the page owes everybody, and leave screenshots of it."""
    for size, dark in LOOKS:
        page.look(size, dark=dark)
        page.shoot(f"waiting-room-{name}-{'narrow' if size == NARROW else 'wide'}-{'dark' if dark else 'light'}")
        assert page.overflow() <= 0
        ratio, text = page.lowest_contrast()
        assert ratio >= READABLE, text
    assert page.complaints() == []
    assert page.language() == "en"
    spoken = page.spoken()
    headings = [name for role, name in spoken if role == "heading"]
    assert headings == [page.title(), "Steps"]
    assert [role for role, _ in spoken if role in {"main", "status", "list"}] == ["main", "status", "list"]
    nameless = [
        role for role, name in spoken if role in {"heading", "progressbar", "button", "link", "region"} and not name
    ]
    assert nameless == []


def test_a_leader_and_a_waiting_container_show_what_goes_on(shared: Volume, chromium: Chrome) -> None:
    """Who works on which step, how far it is, for how long; also with scripts switched off."""
    image = engine.build("v1")
    paused = {"STANDIN_PAUSE": "migrate:doctypes@frappe*1=/standin/gate"}
    replicas = [Replica(shared, image, **paused) for _ in range(2)]
    found: dict[str, Replica] = {}

    def known() -> bool:
        """Ask each one; what it shows may be a second old."""
        found.clear()
        found.update({replica.state(): replica for replica in replicas})
        if not {"leading", "waiting"} <= set(found):
            return False
        steps = [step for one in found.values() for site in one.status()["sites"] for step in site["steps"]]
        busy = [step["step"] for step in steps if step["state"] == "in progress" and step.get("last_line")]
        return busy == ["migrate", "migrate"]

    eventually(known, within=60, what="one that leads and one that waits")
    for state in ("leading", "waiting"):
        page = Page(chromium, f"http://127.0.0.1:{found[state].web}/app")
        assert page.title() == "The site is being updated and will be back soon."
        assert f"{found['leading'].name}[1] does the work." in page.texts("p.soft")
        assert [text.rpartition("\ndone")[0] for text in page.texts("li.done")] == ["✓\nConfiguration", "✓\nSite"]
        assert ("progressbar", "Database migration") in page.spoken()
        _examine(page, state)
    with without_scripts(chromium, f"http://127.0.0.1:{found['waiting'].web}/") as text:
        (first,) = re.findall(r"Running for (\d+) s", text())[:1]
        eventually(lambda: int(re.findall(r"Running for (\d+) s|$", text())[0] or first) > int(first), what="a reload")
        assert "Database migration" in text()


def test_a_failure_is_shown_with_its_last_lines_before_the_container_ends(shared: Volume, chromium: Chrome) -> None:
    """Reached by keyboard, for they may be long; without secrets; the exit code is the failure's all the same."""
    replica = Replica(shared, engine.build("v1"), STANDIN_FAIL="migrate:after_patches").wait_until("failed")
    page = Page(chromium, f"http://127.0.0.1:{replica.web}/app")
    assert page.title() == "The update has met a problem. An administrator has to look at it."
    (lines,) = page.texts("pre")
    assert "stand-in failure at migrate:after_patches" in lines
    assert not [canary for canary in CANARIES if canary.decode() in "".join(page.texts("body"))]
    assert page.reached_by_keyboard() == ["Last lines of Database migration"]
    _examine(page, "failed")
    assert replica.stop()[1] == 76
