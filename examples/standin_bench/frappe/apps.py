"""What an app brings with it: hooks, patches, document types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frappe import knobs, sites

if TYPE_CHECKING:
    from frappe.database import Database


def run_hooks(database: Database, app: str, name: str) -> None:
    """Call the hook functions of an app and leave a trace of each."""
    hooks = getattr(sites.app_module(app), name, [])
    for path in [hooks] if isinstance(hooks, str) else hooks:
        module, _, function = path.rpartition(".")
        package, _, rest = module.partition(".")
        getattr(sites.app_module(package, rest), function)()
        database.count_hook(f"{app}:{name}")


def patches_of(app: str, section: str | None = None) -> list[str]:
    """Return an app's patches, of one section of patches.txt or all; no section means pre_model_sync."""
    current, found = "pre_model_sync", []
    for raw in sites.app_lines(app, "patches.txt"):
        line = raw.partition("#")[0].strip()
        if line.startswith("["):
            current = line.strip("[]")
        elif line and section in (None, current):
            found.append(line)
    return found


def log_patch(database: Database, patch: str, *, skipped: str = "") -> None:
    """Record a patch and commit, so that each stands alone."""
    query = "REPLACE INTO `tabPatch Log` (name, patch, skipped, traceback) VALUES (%s, %s, %s, %s)"
    database.sql(query, patch[:140], patch, int(bool(skipped)), skipped)
    database.commit()


def sync_doctypes(database: Database, app: str, point: str) -> None:
    """Bring an app's own table up to date."""
    sites.progress(f"Updating DocTypes for {app}", 40)
    database.make_table(f"{app.title()} Settings" if app != "frappe" else "User")
    knobs.point(point, app)
    sites.progress(f"Updating DocTypes for {app}", 100)
