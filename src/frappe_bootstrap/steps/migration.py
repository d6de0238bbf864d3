"""The step migrate: the schema is brought to the image's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Step

if TYPE_CHECKING:
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work


class Migration:
    """Migrates the site."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self) -> Step:
        """Return the step."""
        return Step("migrate", self._migrate, verify=self._work.verify_site, settled=self._work.settle)

    def _migrate(self, context: StepContext) -> None:
        self._work.resume(context)
        self._work.healthy(context)
        self._work.write_apps(context)
        self._work.for_site(context, "migrate")
