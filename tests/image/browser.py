"""A headless Chromium, and what is to be asked about a page that everybody may have to read."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.image import engine
from tests.stacks.databases import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDE, NARROW = (1100, 800), (360, 740)
# The contrast of every text with what is behind it, as WCAG 2 computes it: the lowest, and where.
_CONTRAST = """
const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let worst = [99, ''];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
  if (!text) continue;
  const both = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
  const ratio = (Math.max(...both) + .05) / (Math.min(...both) + .05);
  if (ratio < worst[0]) worst = [ratio, text];
}
return worst;
"""


class Page:
    """One page, in one browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self._driver = driver
        driver.get_log("browser")
        driver.get(url)
        # What is looked at stays as it is.
        driver.execute_cdp_cmd("Page.stopLoading", {})

    def look(self, size: tuple[int, int], *, dark: bool) -> None:
        """Show it on a screen of this size, in light or dark."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def shoot(self, name: str) -> None:
        """Leave a screenshot among the artefacts."""
        self._driver.execute_script("window.scrollTo(0, 0)")
        shot = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (engine.artefacts() / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Return what the console says, but that the page itself is a 503: that is what it is."""
        said = [str(entry["message"]) for entry in self._driver.get_log("browser")]
        return [text for text in said if "the server responded with a status of 503" not in text]

    def lowest_contrast(self) -> tuple[float, str]:
        """Return the lowest contrast of a text, and the text."""
        ratio, text = self._driver.execute_script(_CONTRAST)
        return float(ratio), str(text)

    def overflow(self) -> int:
        """Return by how many pixels it is wider than the screen."""
        script = "return document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
        return int(self._driver.execute_script(script))

    def language(self) -> str:
        """Return the language that a screen reader takes."""
        return str(self._driver.execute_script("return document.documentElement.lang"))

    def title(self) -> str:
        """Return the title."""
        return self._driver.title

    def spoken(self) -> list[tuple[str, str]]:
        """Return role and name of everything that a screen reader comes across, in order."""
        tree: dict[str, Any] = self._driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
        nodes = [node for node in tree["nodes"] if not node.get("ignored")]
        return [(str(node["role"]["value"]), str(node.get("name", {}).get("value", ""))) for node in nodes]

    def reached_by_keyboard(self) -> list[str]:
        """Return the names of what Tab comes to, until it leaves the page."""
        found = []
        for _ in range(20):
            self._driver.switch_to.active_element.send_keys(Keys.TAB)
            element = self._driver.switch_to.active_element
            if element.tag_name == "body":
                break
            found.append(element.accessible_name)
        return found

    def texts(self, selector: str) -> list[str]:
        """Return the texts of some elements."""
        return [element.text for element in self._driver.find_elements(By.CSS_SELECTOR, selector)]


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Yield a browser that reaches nothing but what it is told to look at."""
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        switches = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        for switch in (*switches, "--disable-background-networking", f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


@contextlib.contextmanager
def without_scripts(driver: webdriver.Chrome, url: str) -> Iterator[Callable[[], str]]:
    """Open a page with scripts switched off, and yield what returns the text that it has at the moment."""

    def text() -> str:
        # One question: the page may be replaced by its next version between two.
        tree: dict[str, Any] = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
        return "\n".join(str(node.get("name", {}).get("value", "")) for node in tree["nodes"])

    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(url)
    yield text
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
