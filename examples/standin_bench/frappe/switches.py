"""The small commands: listing, settings, maintenance, scheduler, passwords, readiness."""

from __future__ import annotations

import ast
import base64
import contextlib
import getpass
import json
import os
from typing import TYPE_CHECKING, Any

from frappe import cache, sites
from frappe.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frappe.sites import Site


@contextlib.contextmanager
def opened(site: Site) -> Iterator[Database]:
    """Connect to a site as every site command does: folder, log files, then database."""
    site.require()
    site.open_logs()
    database = Database(site)
    yield database
    database.close()


def list_apps(site: Site, form: str) -> None:
    """Print the record of the last migrate; text falls back to bare names when there is no record."""
    with opened(site) as database:
        recorded = database.recorded_applications()
        if form == "json":
            print(json.dumps({site.name: [row[0] for row in recorded]}))
        elif recorded:
            print("\n".join(" ".join(row) for row in recorded))
        else:
            print("\n".join(cache.cached_installed_apps(site, database)))


def execute(site: Site, method: str) -> None:
    """Call one of the two known functions; an empty result prints nothing."""
    with opened(site) as database:
        if method == "frappe.get_installed_apps":
            if apps := cache.cached_installed_apps(site, database):
                print(json.dumps(apps))
        elif method == "frappe.utils.password.get_encryption_key":
            print(json.dumps(_encryption_key(site)))
        else:
            message = f"module 'frappe' has no attribute {method!r}"
            raise AttributeError(message)


def _encryption_key(site: Site) -> str:
    """Return the key, made at its first use."""
    if "encryption_key" not in site.config:
        with sites.editing(site.config_path) as config:
            config["encryption_key"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
    return str(site.config["encryption_key"])


def set_config(site: Site | None, key: str, text: str, *, parse: bool) -> None:
    """Set one key, of a site or of all; texts that look like a switch become numbers, ``None`` removes."""
    switches = {"0": 0, "1": 1, "true": True, "false": False}
    value: Any = ast.literal_eval(text) if parse else switches.get(text, text)
    with sites.editing(site.config_path if site else sites.COMMON_CONFIG) as config:
        if value is None or value == "None":
            config.pop(key, None)
        else:
            config[key] = value


def set_maintenance_mode(site: Site, state: str) -> None:
    """Switch the one flag that both revisions see."""
    site.require()
    set_config(site, "maintenance_mode", "1" if state == "on" else "0", parse=False)


def scheduler(site: Site, action: str) -> None:
    """Enable and disable live in the database, pause and resume in the site's configuration."""
    with opened(site) as database:
        if action in ("pause", "resume"):
            set_config(site, "pause_scheduler", str(int(action == "pause")), parse=False)
        else:
            database.set_single("System Settings", "enable_scheduler", str(int(action == "enable")))
    print(f"Scheduler is {action}d for site {site.name}")


def use(site: Site) -> None:
    """Make a site the default; a missing one is only mentioned."""
    if not site.folder.exists():
        print(f"Site {site.name} does not exist")
        return
    with sites.editing(sites.COMMON_CONFIG) as config:
        config["default_site"] = site.name
    print(f"Current Site set to {site.name}")


def ready_for_migration(site: Site) -> None:
    """Count queued jobs by prefix: a JSON list of ids under the queue server's key ``standin:queued``."""
    site.require()
    queued = json.loads(cache.ask(site.config, "redis_queue", "GET", "standin:queued") or "[]")
    if any(job.startswith(site.name) for job in queued):
        message = f"NOT READY for migration: site {site.name} has pending background jobs"
        raise sites.CommandError(message)
    print(f"READY for migration: site {site.name} does not have any background jobs")


def set_admin_password(site: Site, password: str | None) -> None:
    """Set Administrator's password, asking for it if it was not given."""
    with opened(site) as database:
        database.set_password("Administrator", password or getpass.getpass("Administrator's new password: "))
        database.commit()
