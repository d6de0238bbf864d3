"""A container of a service: made of an image and a configuration, started, stopped, left alone or made anew."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.acceptance.fleet import Container
from tests.standin.fleet import make_bench

if TYPE_CHECKING:
    from tests.acceptance.fleet import Fleet
    from tests.runbook.images import Image


PROGRAMS = Path(__file__).resolve().parents[2] / "examples" / "frappe" / "bin"
"""What the image brings besides the bench."""


def unpack(image: Image, bench: Path, sites: Path) -> Path:
    """Make the bench of an image in a folder, in the place of what is there."""
    shutil.rmtree(bench, ignore_errors=True)
    shipped = dict.fromkeys(image.code.apps, image.code.patches)
    return make_bench.make_bench(bench, image.code.apps, sites=sites, apps_txt=False, patches=shipped)


class Replica:
    """One container; what its process ends with 0 for is what would go on serving.

    Args:
        fleet: what all containers share.
        number: as compose counts them, from 1.
    """

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.name = f"app-{number}"
        self.container = Container(fleet, self.name)
        fleet.containers.append(self.container)
        self.made_of: tuple[Image, dict[str, str]] | None = None
        self.stopped = False
        self._past = ""

    @property
    def bench(self) -> Path:
        """Return its bench."""
        return self.container.bench

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment that it was made with: a file that has changed since is no part of it."""
        assert self.made_of is not None
        return self.made_of[1]

    @property
    def serves(self) -> bool:
        """Return whether it has come up and was not stopped."""
        process = self.container.process
        return process is not None and process.poll() == 0 and not self.stopped

    def make(self, image: Image, environ: dict[str, str]) -> None:
        """Make it anew; its log begins anew, too."""
        self.stop()
        unpack(image, self.bench, self.container.fleet.sites)
        self.made_of = (image, environ)
        self.container.log.unlink(missing_ok=True)
        self._past = ""

    def remove(self) -> None:
        """End it, and have it made anew by the next ``up``."""
        self.stop()
        self.made_of = None

    def start(self) -> None:
        """Start it as it was made."""
        self._past += self.container.text()
        path = f"{self.bench / 'env/bin'}:{PROGRAMS}:{self.container.fleet.environ['PATH']}"
        self.container.start(**self.environ, PATH=path)
        self.stopped = False

    def stop(self) -> None:
        """End it with SIGTERM."""
        process = self.container.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        self.stopped = True

    def code(self, within: float) -> int:
        """Return with what it has ended since it was started last."""
        process = self.container.process
        assert process is not None
        return process.wait(within)

    def log(self) -> str:
        """Return what it has said since it was made."""
        return self._past + self.container.text()


def merged(replicas: list[Replica]) -> str:
    """Return all logs by time, each line with the name of who has said it."""
    rows = []
    for replica in replicas:
        when = ""
        for line in replica.log().splitlines():
            # What has no time of its own goes on with what came before.
            when = line.split(" ")[0] if line.startswith("20") else when
            rows.append((when, f"{replica.name}  | {line}\n"))
    return "".join(line for _, line in sorted(rows, key=lambda row: row[0]))
