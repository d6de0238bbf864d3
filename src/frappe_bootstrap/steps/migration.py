"""The step migrate: the schema is brought to the image's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Step
from frappe_bootstrap import revisions, upgrade
from frappe_bootstrap.codes import refuse

if TYPE_CHECKING:
    from coordinate.steps import StepContext
    from frappe_bootstrap.inspection import State
    from frappe_bootstrap.work import Work


class Migration:
    """Migrates the site."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self) -> Step:
        """Return the step."""
        return Step("migrate", self._migrate, verify=self._work.verify_site, settled=self._work.settle)

    def check(self, context: StepContext) -> State:
        """Return the state of the site if it may be migrated.

        Raises:
            StepRefused: it may not, and nothing but an operator can change that.
        """
        state = self._work.healthy(context)
        if lacking := [app for app in state.apps if app not in self._work.image]:
            names, known = ", ".join(lacking), ", ".join(self._work.image)
            refuse(
                f"site {self._work.settings.site} has apps that this image lacks: {names} (the image has {known}). A "
                "migration without them would leave it broken: use an image that has them, or uninstall them there"
            )
        revisions.check(self._work.settings, state)
        upgrade.check(self._work)
        upgrade.drop_stale_notes(self._work, context, state)
        return state

    def _migrate(self, context: StepContext) -> None:
        self._work.resume(context)
        state = self.check(context)
        upgrade.close(self._work, context)
        revisions.begin(self._work, context, state)
        self._work.write_apps(context)
        self._work.for_site(context, "migrate")
        revisions.finish(self._work, context)
