"""install-app: the installed list is committed before after_install runs, so a death there goes unnoticed."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from frappe import cache, knobs, sites
from frappe.apps import log_patch, patches_of, run_hooks, sync_doctypes
from frappe.database import Database
from frappe.locks import filelock

if TYPE_CHECKING:
    from frappe.sites import Site


def install(site: Site, database: Database, app: str, *, force: bool) -> None:
    """Install one app, with every stage visible to the others as it happens."""
    knobs.point("install-app:begin", app)
    if app not in sites.apps_of_bench():
        message = f"App {app} not in apps.txt"
        raise sites.CommandError(message)
    sites.app_module(app)
    installed = database.installed_apps()
    if app in installed and not force:
        print(f"App {app} already installed")
        return
    print(f"\nInstalling {app}...")
    run_hooks(database, app, "before_install")
    knobs.point("install-app:before_install", app)
    sync_doctypes(database, app, "install-app:doctypes")
    knobs.nap(2.5)
    database.set_installed_apps([*installed, *([] if app in installed else [app])])
    cache.forget_installed_apps(site)
    knobs.point("install-app:installed_apps", app)
    for patch in patches_of(app):
        log_patch(database, patch)
    knobs.point("install-app:after_install", app)
    run_hooks(database, app, "after_install")
    database.commit()
    knobs.point("install-app:end", app)


def install_app(site: Site, apps: list[str], *, force: bool) -> int:
    """Install several apps: a failing one does not keep the others from being tried, the result is 1."""
    site.require()
    site.open_logs()
    code = 0
    with filelock(site.locks, "install_app"):
        for app in apps:
            database = Database(site)
            try:
                install(site, database, app, force=force)
            except Exception as error:  # noqa: BLE001 - goes on with the next app
                code = 1
                print(f"An error occurred while installing {app}: {error}", file=sys.stderr)
                traceback.print_exc()
                continue
            database.close()
    return code


def uninstall_app(site: Site, app: str) -> None:
    """Take an app off the installed list; the framework also drops its tables, which nothing here looks at."""
    site.require()
    site.open_logs()
    database = Database(site)
    installed = database.installed_apps()
    if app not in installed:
        print(f"App {app} not installed on Site {site.name}")
    else:
        database.set_installed_apps([other for other in installed if other != app])
        database.commit()
        cache.forget_installed_apps(site)
        print(f"Uninstalled App {app} from Site {site.name}")
    database.close()
