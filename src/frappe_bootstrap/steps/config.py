"""The step config: what the bench's common config file has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Step
from frappe_bootstrap import config_files
from frappe_bootstrap.owning import own

if TYPE_CHECKING:
    from coordinate import Coordinator
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work


class Config:
    """Writes the common config file."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self) -> Step:
        """Return the step."""
        return Step("config", self._configure, verify=self.amiss)

    def refresh(self, coordinator: Coordinator, timeout: float, *, blocking: bool = True) -> None:
        """Write the common config if it is not what the environment says, although the revision is done.

        Raises:
            Contended: somebody else has the site, and ``blocking`` is False.
        """
        if self.amiss() is None:
            return
        with own(self._work, coordinator, timeout, blocking=blocking) as lease:
            lease.check()
            config_files.write_common(self._work.settings)
        self._work.log("config", "common_site_config.json written: the environment has changed")

    def _configure(self, context: StepContext) -> None:
        context.check()
        changed = config_files.write_common(self._work.settings)
        self._work.log("config", "common_site_config.json " + ("written" if changed else "is as it should be"))

    def amiss(self) -> str | None:
        """Return what is wrong with the common config file, or None."""
        path = self._work.settings.sites / "common_site_config.json"
        found, wanted = config_files.read(path), config_files.common_keys(self._work.settings)
        wrong = [key for key, value in wanted.items() if found.get(key) != value]
        return f"{path} has other values of {', '.join(wrong)}" if wrong else None
