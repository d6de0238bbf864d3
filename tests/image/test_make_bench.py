"""make-bench as the user of the builder stage runs it: no image with a token in it, and no false alarm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.image.engine import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILDER = 65534
"""Not root, to whom nothing is unreadable."""
BENCH = r"""#!/bin/sh
for last; do :; done
mkdir -p "$last/sites/assets" "$last/apps/shop" "$last/env/bin"
ln -s /usr/bin/python3 "$last/env/bin/python"
cd "$last/apps/shop"
"""


class Ended(NamedTuple):
    """With what a build has ended."""

    code: int
    said: str


class Workshop:
    """A home of the builder in which ``bench init`` is a few lines of shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples" / "frappe" / "build", folder / "build")
        (folder / "bin").mkdir()

    def build(self, url: str, script: str = "", frappe: str = "https://git.example/frappe") -> Ended:
        """Build a bench with an app from an address; the script leaves something in the app's folder."""
        command = self.folder / "bin" / "bench"
        command.write_text(BENCH + script)
        command.chmod(0o755)
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        (self.folder / "home").mkdir()
        for path in (self.folder, self.folder / "home"):
            os.chown(path, BUILDER, 0)
        apps = b64encode(json.dumps([{"url": url, "branch": "v1"}]).encode()).decode()
        done = subprocess.run(
            [self.folder / "build" / "make-bench", self.folder / "home" / "made"],
            env={
                "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
                "HOME": str(self.folder / "home"),
                "APPS_JSON_BASE64": apps,
                "FRAPPE_PATH": frappe,
                "FRAPPE_BRANCH": "y",
            },
            cwd=self.folder,
            user=BUILDER,
            group=0,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    """Return one in a place that the builder may enter."""
    with tempfile.TemporaryDirectory(prefix="make-bench-") as folder:
        Path(folder).chmod(0o755)
        yield Workshop(Path(folder))


TOKEN = "CANARYleft+over"
ADDRESS = f"https://x-access-token:{TOKEN}@git.example/shop/demo_app"


@pytest.mark.parametrize(
    "script",
    [
        f"echo 'x {TOKEN} x' >oops",
        f"ln -s https://x:{TOKEN}@git.example oops",
        f"mkdir -p 'oops/{TOKEN}'",
        f'echo {TOKEN} >"$HOME/oops"',
    ],
    ids=["file", "link", "name", "home"],
)
def test_a_token_that_would_stay_ends_the_build_wherever_it_is(workshop: Workshop, script: str) -> None:
    """Where it is is said, and not what it is."""
    ended = workshop.build(ADDRESS, script)
    assert ended.code == 1
    assert "a token of apps.json is still in: " in ended.said
    assert "oops" in ended.said
    assert TOKEN not in ended.said


@pytest.mark.parametrize("script", ["mkdir $HOME/closed; chmod 0 $HOME/closed", "echo x >closed; chmod 0 closed"])
def test_what_cannot_be_read_hides_no_token_that_was_found_elsewhere(workshop: Workshop, script: str) -> None:
    """Both are said."""
    ended = workshop.build(ADDRESS, f"echo {TOKEN} >oops\n{script}")
    assert ended.code == 1
    assert "a token of apps.json is still in: " in ended.said
    assert "apps/shop/oops" in ended.said
    assert "is not known: " in ended.said
    assert TOKEN not in ended.said


def test_what_cannot_be_read_may_hold_a_token_itself(workshop: Workshop) -> None:
    """Nobody can say that it does not."""
    ended = workshop.build(ADDRESS, "echo x >closed; chmod 0 closed")
    assert (ended.code, "apps/shop/closed" in ended.said) == (1, True)


def test_links_to_nothing_and_pipes_are_no_obstacle(workshop: Workshop) -> None:
    """Packages of node are full of the former; nobody waits for the latter."""
    ended = workshop.build(ADDRESS, "ln -s /nowhere/at/all gone; ln -s . round; mkfifo pipe")
    assert ended == (0, "")


@pytest.mark.parametrize(
    ("url", "word", "code"),
    [
        ("https://x-access-token:CANARYtoken@git.example/shop", "x-access-token", 0),
        ("ssh://deployment@git.example/shop", "deployment", 0),
        ("https://git.example/deployment", "deployment", 0),
        ("https://CANARYtoken@git.example/shop", "CANARYtoken", 1),
        ("https://CANARYtoken:@git.example/shop", "CANARYtoken", 1),
        ("https://CANARYtoken:x-oauth-basic@git.example/shop", "CANARYtoken", 1),
        ("https://CANARYtoken:x@git.example/shop", "CANARYtoken", 1),
        ("https://CANARYtoken:x-oauth-basic@git.example/shop", "x-oauth-basic", 0),
        ("https://x:CANARY%2Btoken@git.example/shop", "CANARY+token", 1),
        ("https://x:CANARY%2Btoken@git.example/shop", "CANARY%2Btoken", 1),
    ],
)
def test_a_token_is_the_secret_part_of_an_address_and_a_users_name_is_none(
    workshop: Workshop, url: str, word: str, code: int
) -> None:
    """Names stand in the documentation of many an app; there a name is no alarm."""
    ended = workshop.build(url, f"echo 'the user {word}' >README")
    assert ended.code == code, ended.said
    also = workshop.build("https://git.example/shop", f"echo 'the user {word}' >README", frappe=url)
    assert also.code == code, "in the address of the framework, too"


def test_a_list_of_apps_that_is_none_ends_the_build(workshop: Workshop) -> None:
    """With what is expected; what stands there is not repeated, for it may be a token."""
    assert workshop.build({"CANARY": "x"}).code == 1  # type: ignore[arg-type] -- that is the point
    ended = workshop.build(None)  # type: ignore[arg-type] -- the same
    assert (ended.code, "apps.json: a list of" in ended.said) == (1, True)
