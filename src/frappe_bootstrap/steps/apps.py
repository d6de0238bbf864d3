"""The step apps: what the site shall have and has not is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.errors import CommandFailed
from coordinate.steps import Step
from frappe_bootstrap import revisions, upgrade
from frappe_bootstrap.inspection import Kind

if TYPE_CHECKING:
    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work


class Apps:
    """Installs apps."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self) -> Step:
        """Return the step."""
        return Step("apps", self._install, verify=self._verify, settled=self._work.settle)

    def _install(self, context: StepContext) -> None:
        """Install what is missing, one by one, and migrate again if anything was installed.

        The framework lists an app before its after_install has run. So an app that an attempt of ours, at whatever
        revision, began and did not finish is installed again with --force, listed or not, wanted or not any more.
        """
        notes = self._work.resume(context)
        state = self._work.healthy(context)
        listed = state.apps
        unknown = [app for app in self._work.wanted if app not in self._work.image]
        if unknown:
            # Our own environment is wrong; once it is put right, no record has to be cleared.
            names, known = ", ".join(unknown), ", ".join(self._work.image)
            self._work.decline(f"APPS names {names}, which the image does not have: {known}", patience=0.0)
        begun = notes.get("installing", "").split()
        missing = [app for app in self._work.wanted if app not in listed or app in begun]
        missing += [app for app in begun if app in listed and app in self._work.image and app not in self._work.wanted]
        if missing or notes.get("migrate_again"):
            # Pages of an older revision break once an app is there that their image lacks, whatever apps.txt says.
            revisions.check(self._work.settings, state)
            upgrade.close(self._work, context)
            revisions.begin(self._work, context, state)
            self._work.write_apps(context)
        for app in missing:
            force, others = app in begun, [other for other in begun if other != app]
            context.note(installing=" ".join([*others, app]), migrate_again="1")
            notes["migrate_again"] = "1"
            self._install_one(context, app, force=force)
            begun = others
            context.note(installing=" ".join(begun))
        if notes.get("migrate_again"):
            self._work.write_apps(context)
            self._work.for_site(context, "migrate")
            revisions.finish(self._work, context)
            context.note(migrate_again="")
        upgrade.reopen(self._work, context)

    def _install_one(self, context: StepContext, app: str, *, force: bool) -> None:
        self._work.for_site(context, "install-app", app, *(["--force"] if force else []))
        # A hook that failed may leave exit code 0 in old versions: the list decides.
        if app not in self._work.healthy(context).apps:
            message = f"install-app {app} ended well, but it is not installed"
            raise CommandFailed(message, 1, message)

    def _verify(self) -> str | None:
        state = self._work.bench.state()
        missing = [app for app in self._work.wanted if app not in state.apps]
        if state.kind is not Kind.HEALTHY:
            return str(state)
        return f"not installed: {', '.join(missing)}" if missing else None
