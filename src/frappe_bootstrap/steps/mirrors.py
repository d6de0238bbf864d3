"""The step ready: files that probes of the original image look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.steps import Step
from frappe_bootstrap import files, image

if TYPE_CHECKING:
    from pathlib import Path

    from coordinate import Coordinator
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work

SHARED_SCOPE = "frappe/.bench"
"""What all sites of a volume have in common; no site can have that name."""
KINDS = ("migrated", "apps_installed", "assets_built", "ready")


class Mirrors:
    """Writes the mirrors of what is recorded.

    Args:
        work: on the site, or on one of those that share the volume.
        failed: of several sites, those that were given up.
        scope: whose records are mirrored.
        kinds: of the files.
    """

    def __init__(
        self, work: Work, failed: tuple[str, ...] = (), scope: str = "", kinds: tuple[str, ...] = KINDS
    ) -> None:
        self._work = work
        self._failed = failed
        self._kinds = kinds
        several = len(work.settings.names) > 1
        self._scope = scope or (SHARED_SCOPE if several else work.scope)

    @classmethod
    def of_site(cls, work: Work) -> Mirrors:
        """Return the mirrors in a site's own plan: all of a lone one, a file of its own for one of several."""
        if len(work.settings.names) == 1:
            return cls(work)
        return cls(work, scope=work.scope, kinds=(f"ready-{work.settings.site}",))

    def step(self) -> Step:
        """Return the step."""
        return Step("ready", self._mirror, verify=self._verify)

    def _mirror(self, context: StepContext) -> None:
        """Write the files that probes of the original image look at; we never read them as truth."""
        for path in self._mirrors():
            context.check()
            self._write_mirror(path, context.lease.token)

    def restore(self, coordinator: Coordinator) -> None:
        """Write the mirrors that somebody has deleted, although the revision is done.

        Needs no lease: they say what is recorded already, whoever writes them, and each is written at once as a whole.
        """
        missing = [path for path in self._mirrors() if not path.exists()]
        if not missing:
            return
        record = coordinator.markers(self._scope).view().find("ready", self._work.settings.revision)
        for path in missing:
            self._write_mirror(path, record.token if record is not None else 0)
        self._work.log("ready", f"written again: {', '.join(path.name for path in missing)}")

    def remove(self) -> None:
        """Remove the mirrors, the last one first: the revision is not ready any more."""
        for path in reversed(self._mirrors()):
            path.unlink(missing_ok=True)

    def _mirrors(self) -> list[Path]:
        """Return the paths of the mirrors; ``ready`` is the last one."""
        kinds = [kind for kind in self._kinds if kind != "migrated" or self._work.settings.migrate]
        return [self._work.settings.sites / image.mirror_name(kind, self._work.settings.revision) for kind in kinds]

    def _write_mirror(self, path: Path, token: int) -> None:
        names = [name for name in self._work.settings.names if name not in self._failed]
        ours = [self._work.settings.site] if self._scope == self._work.scope else names
        lines = [f"site {name} token {token}\n" for name in ours]
        lines += [f"site {name} given up\n" for name in self._failed]
        files.replace(path, "".join(lines))

    def _verify(self) -> str | None:
        missing = [path.name for path in self._mirrors() if not path.exists()]
        return f"not there: {', '.join(missing)}" if missing else None
