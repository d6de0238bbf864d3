"""Stores that do not answer, and say so wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.backends.memory import MemoryBackend
from coordinate.errors import BackendUnavailable
from coordinate.types import Gone, Grant, Held, MarkerView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinate.types import RenewAnswer


class Cut(MemoryBackend):
    """A store that does not answer, as a good backend tells it."""

    def failure(self) -> Exception:
        """Return what is raised."""
        return BackendUnavailable("cannot reach 127.0.0.1:1")

    def __getattribute__(self, name: str) -> object:
        if name in {"holder", "leases", "break_lease", "claim", "put_marker", "markers", "delete_marker", "scopes"} | {
            "acquire", "release", "ping", "watch",
        }:  # fmt: skip

            def refuse(*_: object, **__: object) -> object:
                raise self.failure()

            return refuse
        return super().__getattribute__(name)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Know nothing."""
        from coordinate.types import Unknown

        return [Unknown("no answer") for _ in grants]


class DriverErrorLeaks(Cut):
    """An error of the driver arrives as it is."""

    def failure(self) -> Exception:
        """Return the system's."""
        return ConnectionResetError("reset by peer")


class PasswordShown(Cut):
    """The URL is in the message, whole."""

    def failure(self) -> Exception:
        """Return too much."""
        return BackendUnavailable("cannot reach store://:canary@127.0.0.1:1")


class OutageShownAsHeld(Cut):
    """Silence is taken for somebody else's lease."""

    def __getattribute__(self, name: str) -> object:
        if name == "acquire":
            return lambda *_, **__: Held(None, 1.0)
        return super().__getattribute__(name)


class OutageShownAsGone(Cut):
    """Silence is taken for a loss."""

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Give up at once."""
        return [Gone() for _ in grants]


class OutageShownAsNothing(Cut):
    """Silence is taken for an empty store."""

    def __getattribute__(self, name: str) -> object:
        if name == "markers":
            return lambda _: MarkerView(None)
        return super().__getattribute__(name)


CAUGHT_BY: dict[type[Cut], str] = {
    DriverErrorLeaks: "test_what_cannot_be_known_is_an_error[ping]",
    PasswordShown: "test_what_cannot_be_known_is_an_error[ping]",
    OutageShownAsHeld: "test_what_cannot_be_known_is_an_error[acquire]",
    OutageShownAsGone: "test_renewals_without_an_answer_are_unknown",
    OutageShownAsNothing: "test_what_cannot_be_known_is_an_error[markers]",
}
