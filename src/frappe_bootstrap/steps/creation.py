"""The step site: a site is created once, and never where anything could be lost."""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING

from coordinate.errors import CommandFailed
from coordinate.steps import Step
from frappe_bootstrap import config_files
from frappe_bootstrap.codes import EXIT_NOT_CREATED, refuse
from frappe_bootstrap.inspection import Kind

if TYPE_CHECKING:
    from coordinate.steps import StepContext
    from frappe_bootstrap.inspection import State
    from frappe_bootstrap.work import Work


class Creation:
    """Creates the site."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def step(self) -> Step:
        """Return the step."""
        return Step("site", self._create, verify=self._work.verify_site, settled=self._work.settle)

    def _create(self, context: StepContext) -> None:
        notes = self._work.resume(context)
        state = self._work.bench.state(root=True)
        if state.kind is Kind.ABSENT:
            self._check_creation(state)
            context.note(creating="1")
            notes["creating"] = "1"
            self._work.write_apps(context)
            self._new_site(context)
            self._work.created = True
        elif state.kind is not Kind.HEALTHY:
            refuse(f"site {self._work.settings.site} is {state}; nothing was changed")
        if not notes.get("creating"):
            return
        context.lease.check()
        # The framework makes the key when it first needs it, in whichever process that is: better once, now.
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        config_files.write_site(self._work.settings, {"encryption_key": key})
        if self._work.settings.enable_scheduler:
            self._work.for_site(context, "scheduler", "enable")

    def _check_creation(self, state: State) -> None:
        """Refuse to create a site unless it is certain that nothing can be lost."""
        site, database = self._work.settings.site, self._work.settings.database
        if not self._work.settings.create:
            # An operator's word, not something that is missing: nobody would expect this one to wait.
            self._work.decline(
                f"site {site} does not exist and SKIP_INIT=1 forbids to create it", EXIT_NOT_CREATED, 0.0
            )
        if database.root_password is None or self._work.settings.admin_password is None:
            needed = "DB_ROOT_PASS and ADMIN_PASS (or *_FILE) are needed, here or at another replica"
            self._work.decline(f"site {site} does not exist; to create it, {needed}")
        if state.root_error:
            user = database.root_user
            self._work.decline(f"site {site} does not exist; the database does not let {user} in: {state.root_error}")
        if state.database is not False:
            refuse(
                f"site {site} has no folder, but its database or database user {database.name} exists: is the sites "
                "volume empty, wrong or not mounted? Mount the right one, or give DB_NAME another value; "
                "nothing is ever dropped"
            )

    def _new_site(self, context: StepContext) -> None:
        database, admin = self._work.settings.database, self._work.settings.admin_password or ""
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
            self._work.command(context, "new-site", self._work.settings.site, *words, private=(password,))
        except CommandFailed as error:
            # The framework rolls nothing back. Another attempt would meet what is left, and hide why this one failed.
            if (state := self._work.bench.state()).kind is not Kind.ABSENT:
                site = self._work.settings.site
                refuse(f"{error}; it left site {site} {state}. Repair is a decision: nothing is dropped")
            raise
