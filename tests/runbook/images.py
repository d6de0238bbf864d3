"""Images by their tags, as an engine keeps them: a build gives today's code a name, and what had it before has none."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Code:
    """What a checkout holds at some time, as far as a bench shows it.

    ``fails`` names a point at which the bench's commands fail.
    """

    patches: tuple[str, ...] = ("p1", "p2")
    apps: tuple[str, ...] = ("demo_app",)
    fails: str = ""


@dataclass(frozen=True)
class Image:
    """Code that was built under a revision's name. Two builds of the same are one image."""

    revision: str
    code: Code


@dataclass
class Images:
    """An engine's images, and the checkout of which builds are made.

    Attributes:
        checkout: the code of today.
    """

    checkout: Code = field(default_factory=Code)
    _tags: dict[str, Image] = field(default_factory=dict)

    def build(self, revision: str) -> None:
        """Make an image of today's code, whatever had that name."""
        self._tags[revision] = Image(revision, self.checkout)

    def inspect(self, revision: str) -> Image:
        """Return what has the name; that nothing has it is an error, as it is for ``docker image inspect``."""
        assert revision in self._tags, f"no such image: {revision}"
        return self._tags[revision]

    def ensure(self, revision: str, *, build: bool) -> Image:
        """Return what has the name; where nothing has it, compose builds it, unless it is told not to."""
        if build and revision not in self._tags:
            self.build(revision)
        return self.inspect(revision)

    def remove(self, revision: str) -> None:
        """Take a name away."""
        del self._tags[revision]
