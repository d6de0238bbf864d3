"""The step assets: the image's own assets are linked; without any, every name in the map of bundles has its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coordinate.errors import ConfigError
from coordinate.steps import Step
from frappe_bootstrap import image, volume
from frappe_bootstrap.maintenance import Maintenance
from frappe_bootstrap.owning import own

if TYPE_CHECKING:
    from pathlib import Path

    from coordinate import Coordinator
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work


class Assets:
    """Links the assets of the image, or builds them on the volume where that is wanted."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._sites = work.settings.sites
        self._baked = work.settings.operation.baked_assets

    def step(self) -> Step:
        """Return the step."""
        return Step("assets", self._assets, verify=self.amiss, settled=self._work.settle)

    @property
    def linked(self) -> bool:
        """Return whether this image brings its assets, and nobody has asked for others."""
        return self._work.settings.rebuild != "always" and (self._baked / "assets.json").is_file()

    def amiss(self) -> str | None:
        """Return what is wrong with the assets, or None."""
        if self.linked:
            right = volume.is_linked(self._sites, self._baked)
            return None if right else f"{self._sites / 'assets'} is not the link to {self._baked}"
        if self._work.settings.rebuild == "never":
            return None
        unresolved = image.unresolved_assets(self._sites)
        if unresolved is None:
            return "there is no usable assets/assets.json"
        return f"{len(unresolved)} names in assets.json have no file, such as {unresolved[0]}" if unresolved else None

    def refresh(self, coordinator: Coordinator, scope: str, timeout: float) -> None:
        """Link the assets although the revision is done: the volume may have been back at the original image."""
        if not self.linked or self.amiss() is None:
            return
        with own(self._work, coordinator, timeout, scope=scope) as lease:
            try:
                volume.link(self._sites, self._baked, lease.check)
            except OSError as error:
                message = f"the image's assets cannot be linked: {error}"
                raise ConfigError(message) from error
        self._work.log("assets", f"linked again: {self._baked}")

    def _assets(self, context: StepContext) -> None:
        self._work.resume(context)
        if self.linked:
            self._link(context)
            return
        wanted = self.amiss() is not None
        if self._work.settings.rebuild == "always" or (self._work.settings.rebuild == "auto" and wanted):
            self._build(context)

    def _link(self, context: StepContext) -> None:
        alone = len(self._work.settings.names) == 1
        if self.amiss() is not None:
            self._make_link(context, alone=alone)
        if alone:
            # Closed by an attempt that was killed after it had made the link.
            Maintenance(self._work).restore(context)

    def _make_link(self, context: StepContext, *, alone: bool) -> None:
        """Make the link; a folder of the original image is taken away behind closed doors: its pages need it."""
        if (self._sites / "assets").is_mount():
            self._decline("sites/assets is a mount of its own: the image brings its assets, take the mount away")
        closed = alone and not self._work.created and volume.is_folder(self._sites)
        maintenance = Maintenance(self._work)
        if closed:
            maintenance.on(context)
        try:
            volume.link(self._sites, self._baked, context.check)
        except OSError as error:
            self._decline(f"the image's assets cannot be linked: {error}")
        finally:
            if closed:
                maintenance.restore(context)
        self._work.log("assets", f"linked: {self._baked}")

    def _build(self, context: StepContext) -> None:
        if fixed := self._unwritable():
            self._decline(
                f"building assets at boot writes {fixed}, which is read-only: use an image that brings its assets, "
                "set REBUILD_ASSETS_ON_BOOT=0, or give the container a writable root file system"
            )
        if (self._sites / "assets").is_symlink():
            # A build must not write through a link into an image.
            self._work.log("assets", volume.release(self._sites, context.check))
        unresolved = image.unresolved_assets(self._sites)
        self._work.write_apps(context)
        self._work.command(context, "build", "--production")
        context.check()
        # A build keeps the names of an older map that nothing writes any more: they would never resolve.
        image.forget_assets(self._sites, unresolved or [])

    def _unwritable(self) -> Path | None:
        """Return where a build could not write its bundles."""
        folders = [self._work.settings.bench / "apps" / app / app / "public" for app in self._work.image]
        return next((folder for folder in folders if folder.is_dir() and not os.access(folder, os.W_OK)), None)

    def _decline(self, reason: str) -> None:
        """Leave it to a replica whose container can: nothing is held against the step."""
        self._work.decline(reason, ConfigError.exit_code, 0.0)
