"""migrate: patches one by one, schema, hooks, and the record that list-apps reads."""

from __future__ import annotations

import contextlib
import importlib
import json
import traceback
from typing import TYPE_CHECKING

from frappe import cache, knobs, sites
from frappe.apps import log_patch, patches_of, run_hooks, sync_doctypes
from frappe.database import Database
from frappe.locks import filelock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frappe.sites import Site


def _run_patch(database: Database, patch: str, *, skip_failing: bool) -> None:
    detail = patch.split(maxsplit=1)[0].rpartition(".")[2]
    knobs.point("migrate:patch", detail)
    print(f"Executing {patch} in {database.name}")
    try:
        database.count_hook(f"patch:{patch}")
        importlib.import_module(patch.split(maxsplit=1)[0]).execute()
        knobs.point("migrate:in_patch", detail, sql=database.sql)
    except Exception:
        database.rollback()
        if not skip_failing:
            raise
        print(f"Failed to execute patch {patch}")
        log_patch(database, patch, skipped=traceback.format_exc())
    else:
        log_patch(database, patch)
    knobs.point("migrate:patch_done", detail)


def _run_patches(database: Database, apps: list[str], section: str, *, skip_failing: bool) -> None:
    done = {row[0] for row in database.sql("SELECT patch FROM `tabPatch Log` WHERE skipped = 0")}
    database.commit()
    for app in apps:
        for patch in patches_of(app, section):
            if patch not in done:
                _run_patch(database, patch, skip_failing=skip_failing)


@contextlib.contextmanager
def _touched_tables(site: Site, database: Database) -> Iterator[None]:
    """Delete the file first and write it again at the end, after a failure too, not after a lost server."""
    path = site.folder / "touched_tables.json"
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        tables = database.tables()
        path.write_text(json.dumps(tables))


def _migrate(database: Database, *, skip_failing: bool) -> None:
    in_bench = sites.apps_of_bench()
    apps = [app for app in database.installed_apps() if app in in_bench]
    if not database.sql("SELECT name FROM `tabUser` WHERE name = %s", "Administrator"):
        message = "User Administrator not found"
        raise sites.CommandError(message)
    for app in apps:
        run_hooks(database, app, "before_migrate")
        knobs.point("migrate:before_migrate", app)
    _run_patches(database, apps, "pre_model_sync", skip_failing=skip_failing)
    for app in apps:
        sync_doctypes(database, app, "migrate:doctypes")
        knobs.nap(1.5)
    _run_patches(database, apps, "post_model_sync", skip_failing=skip_failing)
    knobs.point("migrate:after_patches")
    for app in apps:
        run_hooks(database, app, "after_migrate")
        knobs.point("migrate:after_migrate", app)
    versions = [(app, str(importlib.import_module(app).__version__)) for app in apps]
    database.record_applications(versions)


def migrate(site: Site, *, skip_failing: bool) -> None:
    """Migrate one site. maintenance_mode is neither set nor cleared."""
    site.require()
    knobs.point("migrate:begin")
    if not cache.is_running(site.config, "redis_cache"):
        message = "Service redis_cache is not running. Migrate needs its services running."
        raise sites.CommandError(message)
    site.open_logs()
    print(f"Migrating {site.name}")
    with filelock(site.locks, "bench_migrate"):
        database = Database(site)
        knobs.spawn_heartbeat()
        knobs.point("migrate:locked", sql=database.sql)
        with _touched_tables(site, database):
            _migrate(database, skip_failing=skip_failing)
        cache.forget_installed_apps(site)
        knobs.point("migrate:end")
        database.close()
