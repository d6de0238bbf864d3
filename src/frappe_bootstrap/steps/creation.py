"""The step site: a site is created once, repaired if it is our own half-made one, and nothing else is ever touched.

A nonce is in the marker's notes before the first effect, then in the database itself before the framework sees it, and
in the site's config when all is done. Only what carries the nonce of a creation that has not ended is filled again.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from coordinate.errors import CommandFailed
from coordinate.steps import Step
from frappe_bootstrap import config_files, record
from frappe_bootstrap.codes import EXIT_NOT_CREATED, refuse
from frappe_bootstrap.inspection import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.steps import StepContext
    from frappe_bootstrap.bench import Acted
    from frappe_bootstrap.inspection import State
    from frappe_bootstrap.work import Work

FINISHED = "frappe_bootstrap_creation"
"""Key of the site's config: the nonce of the creation that has ended."""


class Creation:
    """Creates the site.

    Args:
        work: the work on the site.
        operator: somebody has decided that a half-made site is to be filled again, whoever made it.
    """

    def __init__(self, work: Work, *, operator: bool = False) -> None:
        self._work = work
        self._operator = operator

    def step(self) -> Step:
        """Return the step."""
        return Step("site", self._create, verify=self._work.verify_site, settled=self._work.settle)

    def _create(self, context: StepContext) -> None:
        notes = self._work.resume(context)
        state = self._work.bench.state(root=True)
        ours = noted(notes)
        check_alone(self._work, state)
        if state.kind is Kind.HEALTHY:
            self._accept(context, state, ours)
            return
        if ours is None and state.kind is Kind.ABSENT:
            self._check_creation(state)
            ours = self._begin(context)
            self._fill(context, state, ours, fresh=True)
        else:
            ours = ours or (self._begin(context) if self._operator else None)
            self._repair(context, state, ours)
        self._work.created = True
        self._finish(context, ours)
        self._work.created = True

    def _begin(self, context: StepContext) -> record.Creation:
        """Note what we are about to do; from here on a next attempt can tell what is ours."""
        site, database = self._work.settings.site, self._work.settings.database.name
        ours = record.Creation(secrets.token_hex(16), site, database, context.lease.token, time.time())
        context.note(creation=msgspec.json.encode(ours).decode())
        return ours

    def _repair(self, context: StepContext, state: State, ours: record.Creation | None) -> None:
        site = self._work.settings.site
        if ours is None or (state.kind is not Kind.ABSENT and finished(self._work) == ours.nonce):
            refuse(
                f"site {site} is {state}; nothing was changed, since no creation of ours is known to have been cut "
                f"off. Restore it, or, if nothing in it is needed: frappe-bootstrap repair {site}"
            )
        self._work.log("site", f"{site} is {state}: a creation was cut off; going on with it")
        self._check_secrets(root=True)
        if state.database_name not in ("", ours.database):
            refuse(f"site {site} names the database {state.database_name}, and our creation began {ours.database}")
        self._fill(context, state, msgspec.structs.replace(ours, token=context.lease.token), fresh=False)

    def _check_secrets(self, *, root: bool) -> None:
        missing = self._work.settings.admin_password is None
        if missing or (root and self._work.settings.database.root_password is None):
            needed = "DB_ROOT_PASS and ADMIN_PASS (or *_FILE) are needed, here or at another replica"
            self._work.decline(f"site {self._work.settings.site} does not exist; to create it, {needed}")

    def _check_creation(self, state: State) -> None:
        """Refuse to create a site unless it is certain that nothing can be lost."""
        site, database = self._work.settings.site, self._work.settings.database
        if not self._work.settings.create:
            # An operator's word, not something that is missing: nobody would expect this one to wait.
            self._work.decline(
                f"site {site} does not exist and SKIP_INIT=1 forbids to create it", EXIT_NOT_CREATED, 0.0
            )
        self._check_secrets(root=True)
        if state.root_error:
            user = database.root_user
            self._work.decline(f"site {site} does not exist; the database does not let {user} in: {state.root_error}")
        if state.database is not False and not self._operator:
            refuse(
                f"site {site} has no folder, but its database or database user {database.name} exists: is the sites "
                "volume empty, wrong or not mounted? Mount the right one, or give DB_NAME another value; "
                f"nothing is ever dropped. If it is a half-made one that nobody needs: frappe-bootstrap repair {site}"
            )

    def _fill(self, context: StepContext, state: State, ours: record.Creation, *, fresh: bool) -> None:
        """Make what is missing of the database, and let the framework fill it."""
        self._work.write_apps(context)
        found = config_files.read_or_empty(self._work.site_config)
        password = str(found.get("db_password") or self._work.settings.database.password or secrets.token_urlsafe(18))
        if not self._can_fill(context):
            self._make_anew(context, ours, password, fresh=fresh)
            return
        acted = self._work.bench.prepare(
            context, ours, password, fresh=fresh and not self._operator, force=self._operator
        )
        self._check_acted(acted, ours)
        if state.kind is not Kind.ABSENT:
            if self._work.bench.state().kind is Kind.HEALTHY:
                return
            config_files.set_aside(self._work.site_config, ours.nonce)
        words = ["--no-setup-db", *(["--force"] if self._work.site_config.parent.exists() else [])]
        self._new_site(context, ours, password, words)

    def _can_fill(self, context: StepContext) -> bool:
        """Return whether new-site can be told that the database is there; then no repair has to drop anything."""
        lines: list[str] = []
        self._work.bench.run(context, "new-site", "--help", on_line=lines.append)
        return any("setup-db" in line for line in lines)

    def _make_anew(self, context: StepContext, ours: record.Creation, password: str, *, fresh: bool) -> None:
        """As v14 needs it: new-site makes the database itself, and none may be there."""
        if not fresh:
            self._check_acted(self._work.bench.discard(context, ours, force=self._operator), ours)
            config_files.set_aside_site(self._work.site_config, ours.nonce)
        database = self._work.settings.database
        root = [f"--db-root-username={database.root_user}", f"--db-root-password={database.root_password}"]
        self._new_site(context, ours, password, [*root, "--no-mariadb-socket"])

    def _check_acted(self, acted: Acted, ours: record.Creation) -> None:
        site = self._work.settings.site
        if acted.foreign:
            refuse(
                f"the database {ours.database} is not touched: {acted.foreign}. Give DB_NAME another value, or, if "
                f"nothing in it is needed: frappe-bootstrap repair {site}"
            )
        if not acted.ok:
            message = f"the database {ours.database} could not be made: {acted.error}"
            raise CommandFailed(message, 1, message)

    def _new_site(self, context: StepContext, ours: record.Creation, password: str, more: list[str]) -> None:
        # Host and port come from the common config: given here, they would be copied into the site's own config,
        # where they win over it for ever. One word each: a password may begin with a dash.
        words = [
            f"--db-type={self._work.settings.database.kind}",
            f"--db-name={ours.database}",
            f"--db-password={password}",
            f"--admin-password={self._work.settings.admin_password or ''}",
        ]
        self._work.command(
            context, "new-site", self._work.settings.site, *words, *more, private=(password,), creation=ours
        )

    def _finish(self, context: StepContext, ours: record.Creation | None) -> None:
        """Do what new-site leaves to the first user, then say that the creation has ended."""
        if ours is None or self._work.bench.state().kind is not Kind.HEALTHY:
            return
        context.check()
        # The framework makes the key when it first needs it, in whichever process that is: better once, now.
        key = base64.urlsafe_b64encode(os.urandom(32)).decode()
        config_files.write_site(self._work.settings, {"encryption_key": key})
        if self._work.settings.enable_scheduler:
            self._work.for_site(context, "scheduler", "enable")
        done = msgspec.structs.replace(ours, done=True, token=context.lease.token)
        self._work.bench.write_record(context, "creation", done)
        context.check()
        config_files.write_site(self._work.settings, {}, {FINISHED: ours.nonce})

    def _accept(self, context: StepContext, state: State, ours: record.Creation | None) -> None:
        """Go on with a healthy site: one of ours, or one that somebody else made, which is ours from now on."""
        if state.rotated:
            rotate(self._work, context.check)
        known = state.record.creation
        if ours is not None and (known is None or known.nonce != ours.nonce):
            # Restored over a creation of ours that was cut off: its users and passwords are not ours to set.
            ours = None
        if known is None or self._operator:
            adopted = ours or record.Creation(secrets.token_hex(16), self._work.settings.site, state.database_name)
            row = msgspec.structs.replace(adopted, token=context.lease.token, at=time.time(), done=ours is None)
            self._work.bench.write_record(context, "creation", row, force=self._operator)
            self._work.log("site", f"{self._work.settings.site} is adopted: our record is in its database now")
        elif known.site != self._work.settings.site:
            refuse(
                f"the database {state.database_name} belongs to site {known.site}, says the record in it; nothing was "
                f"changed. If the site was renamed: frappe-bootstrap adopt {self._work.settings.site}"
            )
        elif finished(self._work) not in ("", known.nonce):
            self._work.log("site", "volume and database come from different creations: one was restored or copied")
            config_files.write_site(self._work.settings, {}, {FINISHED: known.nonce})
        if ours is not None and finished(self._work) != ours.nonce:
            # Whether new-site came to the end is not known: its last work is done again.
            if self._work.settings.admin_password is not None:
                self._work.for_site(context, "set-admin-password", self._work.settings.admin_password)
            self._finish(context, ours)


def noted(notes: dict[str, str]) -> record.Creation | None:
    """Return the creation that earlier attempts have begun and not ended."""
    text = notes.get("creation", "")
    return msgspec.json.decode(text, type=record.Creation) if text else None


def finished(work: Work) -> str:
    """Return the nonce of the creation that has ended, as the site's config says."""
    return str(config_files.read_or_empty(work.site_config).get(FINISHED, ""))


def rotate(work: Work, check: Callable[[], object]) -> None:
    """Write the environment's password into the config, after it was let in and the config's was not."""
    check()
    config_files.write_site(work.settings, {}, {"db_password": work.settings.database.password})
    work.log("site", "DB_PASS is the database's password now: written to site_config.json")


def check_alone(work: Work, state: State) -> None:
    """Refuse if another site of this volume uses the same database.

    Raises:
        StepRefused: which one.
    """
    wanted = (state.database_name or work.settings.database.name).casefold()
    for path in sorted(work.settings.sites.glob("*/site_config.json")):
        if path.parent.name == work.settings.site:
            continue
        if str(config_files.read_or_empty(path).get("db_name", "")).casefold() == wanted:
            refuse(
                f"site {path.parent.name} on this volume has the database {wanted}, too: two sites cannot share one. "
                f"Give DB_NAME of {work.settings.site} another value"
            )
