"""The step assets: every name in the map of bundles has its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Step
from frappe_bootstrap import image

if TYPE_CHECKING:
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work


class Assets:
    """Builds the assets where that is wanted."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self) -> Step:
        """Return the step."""
        return Step("assets", self._build, verify=self._verify, settled=self._work.settle)

    def _build(self, context: StepContext) -> None:
        self._work.resume(context)
        unresolved = image.unresolved_assets(self._work.settings.sites)
        wanted = unresolved is None or bool(unresolved)
        if self._work.settings.rebuild == "never" or (self._work.settings.rebuild == "auto" and not wanted):
            return
        self._work.write_apps(context)
        self._work.command(context, "build", "--production")
        context.lease.check()
        # A build keeps the names of an older map that nothing writes any more: they would never resolve.
        image.forget_assets(self._work.settings.sites, unresolved or [])

    def _verify(self) -> str | None:
        if self._work.settings.rebuild == "never":
            return None
        unresolved = image.unresolved_assets(self._work.settings.sites)
        if unresolved is None:
            return "there is no usable assets/assets.json"
        return f"{len(unresolved)} names in assets.json have no file, such as {unresolved[0]}" if unresolved else None
