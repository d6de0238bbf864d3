"""The steps that bring a site to a revision: config, site, migrate, apps, assets, ready.

Each is re-runnable and judged by what the database says by SQL. Never is a database dropped: a site that is neither
absent nor healthy is refused (exit code 81), once for the whole fleet. What only this member lacks (root's password, a
right app list) is left to the others. What an attempt is about to do is in its marker's notes beforehand, so that the
next attempt, also at another revision, knows what earlier ones may have left half done.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from typing import TYPE_CHECKING, NoReturn

from coordinate.errors import CommandFailed, StepDeclined, StepRefused
from coordinate.steps import Plan, Step
from frappe_bootstrap import config_files, files, image
from frappe_bootstrap.bench import sessions_of
from frappe_bootstrap.inspection import Kind, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coordinate import Coordinator
    from coordinate.steps import StepContext
    from coordinate.types import MarkerRecord
    from frappe_bootstrap.bench import Bench
    from frappe_bootstrap.settings import Settings

EXIT_REFUSED = 81
EXIT_NOT_CREATED = 82
EXIT_UNSETTLED = 83
LOCKS_TIMEOUT = 30.0
_PAUSE = 0.05
MIRRORS = ("migrated", "apps_installed", "assets_built", "ready")


def refuse(reason: str) -> NoReturn:
    """End a step that nobody must go on with: what is wrong is the same for every member."""
    raise StepRefused(reason, EXIT_REFUSED)


class Site:
    """The steps of one site.

    Args:
        settings: what is wanted.
        bench: runs commands and looks.
        log: gets a step's name and a line.
    """

    def __init__(self, settings: Settings, bench: Bench, log: Callable[[str, str], object]) -> None:
        self._settings = settings
        self._bench = bench
        self._log = log
        self._image = image.apps(settings.bench)
        self._wanted = settings.wanted_apps(self._image)
        self._earlier: dict[str, dict[str, str]] = {}

    def plan(self) -> Plan:
        """Return the plan, the same in every member of the fleet."""
        settings = self._settings
        return Plan(self._scope, settings.revision, self.steps(), stale_after=settings.stale_after)

    @property
    def _scope(self) -> str:
        return f"frappe/{self._settings.site}"

    def steps(self) -> list[Step]:
        """Return the steps in order."""
        steps = [
            Step("config", self._configure, verify=self._verify_config),
            Step("site", self._create, verify=self._verify_site, settled=self._settle),
            Step("migrate", self._migrate, verify=self._verify_site, settled=self._settle),
            Step("apps", self._install, verify=self._verify_apps, settled=self._settle),
            Step("assets", self._build, verify=self._verify_assets, settled=self._settle),
            Step("ready", self._mirror, verify=self._verify_mirrors),
        ]
        limit = self._settings.step_timeout
        return [step._replace(timeout=limit) for step in steps if step.name != "migrate" or self._settings.migrate]

    # Common to the steps

    def _decline(self, reason: str, code: int = EXIT_REFUSED, patience: float | None = None) -> NoReturn:
        """End a step that this member cannot do; it waits as long as for a server, unless told otherwise."""
        raise StepDeclined(reason, code, self._settings.wait_timeout if patience is None else patience)

    def _settle(self, context: StepContext, before: MarkerRecord) -> None:
        """Return when nothing of an earlier attempt can have an effect any more."""
        # Oldest first: what a later attempt has noted, also that something is finished, wins.
        self._earlier[before.step] = {**self._earlier.get(before.step, {}), **before.notes}
        folder = self._settings.sites / self._settings.site / "locks"
        limit = time.monotonic() + LOCKS_TIMEOUT
        while held := [path.name for path in sorted(folder.glob("*.lock")) if not config_files.is_free(path)]:
            context.lease.check()
            if time.monotonic() > limit:
                message = f"a command that is not ours still holds {', '.join(held)} in {folder}"
                raise CommandFailed(message, EXIT_UNSETTLED, message)
            time.sleep(_PAUSE)
        sessions = sessions_of(before.notes)
        if sessions and (problem := self._bench.settle(context, sessions)):
            message = f"database sessions of an earlier attempt of {before.step} could not be ended: {problem}"
            if self._settings.database.root_password is None:
                # Root sees and ends every session; whoever knows its password may succeed where we did not.
                self._decline(message, EXIT_UNSETTLED)
            raise CommandFailed(message, EXIT_UNSETTLED, message)

    def _notes(self, context: StepContext) -> dict[str, str]:
        """Return what earlier attempts and this one have noted, besides sessions that are settled."""
        earlier = {key: value for key, value in self._earlier.get(context.record.step, {}).items() if key != "sessions"}
        return {**earlier, **context.record.notes}

    def _resume(self, context: StepContext) -> dict[str, str]:
        """Begin an attempt: its notes carry on what earlier ones left, in case that it fails, too."""
        notes = {key: value for key, value in self._notes(context).items() if key != "sessions"}
        context.note(sessions="", **notes)
        return notes

    def _command(self, context: StepContext, *argv: str, private: tuple[str, ...] = ()) -> None:
        step = context.record.step
        context.lease.check()
        self._bench.run(context, *argv, secrets=private, on_line=lambda text: self._log(step, text))

    def _for_site(self, context: StepContext, *argv: str) -> None:
        self._command(context, "--site", self._settings.site, *argv)

    def _write_apps(self, context: StepContext) -> None:
        """Write apps.txt: exactly the image's apps, frappe first."""
        path = self._settings.sites / "apps.txt"
        try:
            before = path.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            before = []
        if before == list(self._image):
            return
        if before:
            context.note(previous_apps=" ".join(before))
        context.lease.check()
        files.replace(path, "\n".join(self._image) + "\n")

    def _healthy(self, context: StepContext) -> State:
        state = self._bench.known_state(context.lease)
        if state.kind is not Kind.HEALTHY:
            reason = f"site {self._settings.site} is {state}"
            refuse(reason)
        return state

    # config

    def refresh_config(self, coordinator: Coordinator, timeout: float) -> None:
        """Write the common config if it is not what the environment says, although the revision is done."""
        if self._verify_config() is None:
            return
        lease = coordinator.lease(self._scope)
        lease.acquire(timeout)
        with lease:
            lease.check()
            config_files.write_common(self._settings)
        self._log("config", "common_site_config.json written: the environment has changed")

    def _configure(self, context: StepContext) -> None:
        context.lease.check()
        changed = config_files.write_common(self._settings)
        self._log("config", "common_site_config.json " + ("written" if changed else "is as it should be"))

    def _verify_config(self) -> str | None:
        path = self._settings.sites / "common_site_config.json"
        found, wanted = config_files.read(path), config_files.common_keys(self._settings)
        wrong = [key for key, value in wanted.items() if found.get(key) != value]
        return f"{path} has other values of {', '.join(wrong)}" if wrong else None

    # site

    def _create(self, context: StepContext) -> None:
        notes = self._resume(context)
        state = self._bench.state(root=True)
        if state.kind is Kind.ABSENT:
            self._check_creation(state)
            context.note(creating="1")
            notes["creating"] = "1"
            self._write_apps(context)
            self._new_site(context)
        elif state.kind is not Kind.HEALTHY:
            refuse(f"site {self._settings.site} is {state}; nothing was changed")
        if not notes.get("creating"):
            return
        context.lease.check()
        # The framework makes the key when it first needs it, in whichever process that is: better once, now.
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        config_files.write_site(self._settings, {"encryption_key": key})
        if self._settings.enable_scheduler:
            self._for_site(context, "scheduler", "enable")

    def _check_creation(self, state: State) -> None:
        """Refuse to create a site unless it is certain that nothing can be lost."""
        site, database = self._settings.site, self._settings.database
        if not self._settings.create:
            # An operator's word, not something that is missing: nobody would expect this one to wait.
            self._decline(f"site {site} does not exist and SKIP_INIT=1 forbids to create it", EXIT_NOT_CREATED, 0.0)
        if database.root_password is None or self._settings.admin_password is None:
            needed = "DB_ROOT_PASS and ADMIN_PASS (or *_FILE) are needed, here or at another replica"
            self._decline(f"site {site} does not exist; to create it, {needed}")
        if state.root_error:
            user = database.root_user
            self._decline(f"site {site} does not exist; the database does not let {user} in: {state.root_error}")
        if state.database is not False:
            refuse(
                f"site {site} has no folder, but its database or database user {database.name} exists: is the sites "
                "volume empty, wrong or not mounted? Mount the right one, or give DB_NAME another value; "
                "nothing is ever dropped"
            )

    def _new_site(self, context: StepContext) -> None:
        database, admin = self._settings.database, self._settings.admin_password or ""
        password = database.password or secrets.token_urlsafe(18)
        root = database.root_password or ""
        options = {
            "--db-type": "mariadb",
            "--db-name": database.name,
            "--db-password": password,
            "--db-root-username": database.root_user,
            "--db-root-password": root,
            "--admin-password": admin,
            "--mariadb-user-host-login-scope": "%",
        }
        # Host and port come from the common config: given here, they would be copied into the site's own config,
        # where they win over it for ever. One word each: a password may begin with a dash.
        words = [f"{name}={value}" for name, value in options.items()]
        try:
            self._command(context, "new-site", self._settings.site, *words, private=(password,))
        except CommandFailed as error:
            # The framework rolls nothing back. Another attempt would meet what is left, and hide why this one failed.
            if (state := self._bench.state()).kind is not Kind.ABSENT:
                refuse(f"{error}; it left site {self._settings.site} {state}. Repair is a decision: nothing is dropped")
            raise

    def _verify_site(self) -> str | None:
        state = self._bench.state()
        return None if state.kind is Kind.HEALTHY else str(state)

    # migrate

    def _migrate(self, context: StepContext) -> None:
        self._resume(context)
        self._healthy(context)
        self._write_apps(context)
        self._for_site(context, "migrate")

    # apps

    def _install(self, context: StepContext) -> None:
        """Install what is missing, one by one, and migrate again if anything was installed.

        The framework lists an app before its after_install has run. So an app that an attempt of ours, at whatever
        revision, began and did not finish is installed again with --force, listed or not, wanted or not any more.
        """
        notes = self._resume(context)
        listed = self._healthy(context).apps
        unknown = [app for app in self._wanted if app not in self._image]
        if unknown:
            # Our own environment is wrong; once it is put right, no record has to be cleared.
            names, known = ", ".join(unknown), ", ".join(self._image)
            self._decline(f"APPS names {names}, which the image does not have: {known}", patience=0.0)
        begun = notes.get("installing", "").split()
        missing = [app for app in self._wanted if app not in listed or app in begun]
        missing += [app for app in begun if app in listed and app in self._image and app not in self._wanted]
        if missing:
            self._write_apps(context)
        for app in missing:
            force, others = app in begun, [other for other in begun if other != app]
            context.note(installing=" ".join([*others, app]), migrate_again="1")
            notes["migrate_again"] = "1"
            self._install_one(context, app, force=force)
            begun = others
            context.note(installing=" ".join(begun))
        if notes.get("migrate_again"):
            self._write_apps(context)
            self._for_site(context, "migrate")
            context.note(migrate_again="")

    def _install_one(self, context: StepContext, app: str, *, force: bool) -> None:
        self._for_site(context, "install-app", app, *(["--force"] if force else []))
        # A hook that failed may leave exit code 0 in old versions: the list decides.
        if app not in self._healthy(context).apps:
            message = f"install-app {app} ended well, but it is not installed"
            raise CommandFailed(message, 1, message)

    def _verify_apps(self) -> str | None:
        state = self._bench.state()
        missing = [app for app in self._wanted if app not in state.apps]
        if state.kind is not Kind.HEALTHY:
            return str(state)
        return f"not installed: {', '.join(missing)}" if missing else None

    # assets

    def _build(self, context: StepContext) -> None:
        self._resume(context)
        unresolved = image.unresolved_assets(self._settings.sites)
        wanted = unresolved is None or bool(unresolved)
        if self._settings.rebuild == "never" or (self._settings.rebuild == "auto" and not wanted):
            return
        self._write_apps(context)
        self._command(context, "build", "--production")
        context.lease.check()
        # A build keeps the names of an older map that nothing writes any more: they would never resolve.
        image.forget_assets(self._settings.sites, unresolved or [])

    def _verify_assets(self) -> str | None:
        if self._settings.rebuild == "never":
            return None
        unresolved = image.unresolved_assets(self._settings.sites)
        if unresolved is None:
            return "there is no usable assets/assets.json"
        return f"{len(unresolved)} names in assets.json have no file, such as {unresolved[0]}" if unresolved else None

    # ready

    def _mirror(self, context: StepContext) -> None:
        """Write the files that probes of the original image look at; we never read them as truth."""
        for path in self._mirrors():
            context.lease.check()
            self._write_mirror(path, context.lease.token)

    def restore_mirrors(self, coordinator: Coordinator) -> None:
        """Write the mirrors that somebody has deleted, although the revision is done.

        Needs no lease: they say what is recorded already, whoever writes them, and each is written at once as a whole.
        """
        missing = [path for path in self._mirrors() if not path.exists()]
        if not missing:
            return
        record = coordinator.markers(self._scope).view().find("ready", self._settings.revision)
        for path in missing:
            self._write_mirror(path, record.token if record is not None else 0)
        self._log("ready", f"written again: {', '.join(path.name for path in missing)}")

    def _mirrors(self) -> list[Path]:
        """Return the paths of the mirrors; ``ready`` is the last one."""
        kinds = [kind for kind in MIRRORS if kind != "migrated" or self._settings.migrate]
        return [self._settings.sites / image.mirror_name(kind, self._settings.revision) for kind in kinds]

    def _write_mirror(self, path: Path, token: int) -> None:
        files.replace(path, f"site {self._settings.site} token {token}\n")

    def _verify_mirrors(self) -> str | None:
        missing = [path.name for path in self._mirrors() if not path.exists()]
        return f"not there: {', '.join(missing)}" if missing else None


__all__ = ["EXIT_NOT_CREATED", "EXIT_REFUSED", "EXIT_UNSETTLED", "MIRRORS", "Site", "refuse"]
