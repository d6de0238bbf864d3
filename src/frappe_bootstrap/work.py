"""What the steps of one site have in common: running commands, notes of attempts, settling, looking."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from coordinate.errors import CommandFailed, StepDeclined
from frappe_bootstrap import config_files, files, image
from frappe_bootstrap.bench import sessions_of
from frappe_bootstrap.codes import EXIT_REFUSED, EXIT_UNSETTLED, refuse
from frappe_bootstrap.inspection import Kind, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coordinate.steps import StepContext
    from coordinate.types import MarkerRecord
    from frappe_bootstrap.bench import Bench
    from frappe_bootstrap.record import Creation
    from frappe_bootstrap.settings import Settings

LOCKS_TIMEOUT = 30.0
_PAUSE = 0.05


class Work:
    """The work on one site.

    Args:
        settings: what is wanted.
        bench: runs commands and looks.
        log: gets a step's name and a line.
    """

    def __init__(self, settings: Settings, bench: Bench, log: Callable[[str, str], object]) -> None:
        self.settings = settings
        self.bench = bench
        self.log = log
        self.image = image.apps(settings.bench)
        self.wanted = settings.wanted_apps(self.image)
        self.created = False
        """Whether this process has made the site in this boot, so that nobody can be serving it."""
        self.alone = True
        """Whether this member has nothing else to do than to wait for others with this site."""
        self.patience = 0.0
        """How long the last step that was declined would have been waited for."""
        self._earlier: dict[str, dict[str, str]] = {}

    @property
    def scope(self) -> str:
        """Return the scope of the site's lease and markers; it never holds the revision."""
        return f"frappe/{self.settings.site}"

    def decline(self, reason: str, code: int = EXIT_REFUSED, patience: float | None = None) -> NoReturn:
        """End a step that this member cannot do; it waits as long as for a server, unless told otherwise."""
        self.patience = self.settings.wait_timeout if patience is None else patience
        raise StepDeclined(reason, code, self.patience if self.alone else 0.0)

    def settle(self, context: StepContext, before: MarkerRecord) -> None:
        """Return when nothing of an earlier attempt can have an effect any more."""
        # Oldest first: what a later attempt has noted, also that something is finished, wins.
        self._earlier[before.step] = {**self._earlier.get(before.step, {}), **before.notes}
        folder = self.settings.sites / self.settings.site / "locks"
        limit = time.monotonic() + LOCKS_TIMEOUT
        while held := [path.name for path in sorted(folder.glob("*.lock")) if not config_files.is_free(path)]:
            context.check()
            if time.monotonic() > limit:
                message = f"a command that is not ours still holds {', '.join(held)} in {folder}"
                raise CommandFailed(message, EXIT_UNSETTLED, message)
            time.sleep(_PAUSE)
        sessions = sessions_of(before.notes)
        if sessions and (problem := self.bench.settle(context, sessions)):
            message = f"database sessions of an earlier attempt of {before.step} could not be ended: {problem}"
            if self.settings.database.root_password is None:
                # Root sees and ends every session; whoever knows its password may succeed where we did not.
                self.decline(message, EXIT_UNSETTLED)
            raise CommandFailed(message, EXIT_UNSETTLED, message)

    def notes(self, context: StepContext) -> dict[str, str]:
        """Return what earlier attempts and this one have noted, besides sessions that are settled."""
        earlier = {key: value for key, value in self._earlier.get(context.record.step, {}).items() if key != "sessions"}
        return {**earlier, **context.record.notes}

    def resume(self, context: StepContext) -> dict[str, str]:
        """Begin an attempt: its notes carry on what earlier ones left, in case that it fails, too."""
        notes = {key: value for key, value in self.notes(context).items() if key != "sessions"}
        context.note(sessions="", **notes)
        return notes

    @property
    def site_config(self) -> Path:
        """Return the path of the site's config file."""
        return self.settings.sites / self.settings.site / "site_config.json"

    def command(
        self, context: StepContext, *argv: str, private: tuple[str, ...] = (), creation: Creation | None = None
    ) -> None:
        """Run a bench command under the lease.

        Args:
            context: of the step.
            argv: the command.
            private: further words that its output may not show.
            creation: what is written into the database that the command makes.
        """
        step = context.record.step
        context.check()
        self.bench.run(context, *argv, secrets=private, creation=creation, on_line=lambda text: self.log(step, text))

    def for_site(self, context: StepContext, *argv: str) -> None:
        """Run a bench command for this site."""
        self.command(context, "--site", self.settings.site, *argv)

    def write_apps(self, context: StepContext) -> None:
        """Write apps.txt: exactly the image's apps, frappe first."""
        path = self.settings.sites / "apps.txt"
        try:
            before = path.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            before = []
        if before == list(self.image):
            return
        if before:
            context.note(previous_apps=" ".join(before))
        context.check()
        files.replace(path, "\n".join(self.image) + "\n")

    def healthy(self, context: StepContext) -> State:
        """Return the state of the site; end the step for good if it is not healthy."""
        state = self.bench.known_state(context)
        if state.kind is not Kind.HEALTHY:
            reason = f"site {self.settings.site} is {state}"
            refuse(reason)
        return state

    def verify_site(self) -> str | None:
        """Return why the site is not healthy, or None."""
        state = self.bench.state()
        return None if state.kind is Kind.HEALTHY else str(state)
