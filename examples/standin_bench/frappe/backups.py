"""backup and restore, for the database of the stand-in only: a dump in the site's private folder, and back.

As in the framework, a restore drops the database first, needs root's login for that, keeps the site's config, and says
nothing about the apps of the bench.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from frappe import cache, sites
from frappe.database import Database, connect_root

if TYPE_CHECKING:
    from frappe.sites import Site


def _file(site: Site) -> Path:
    """Return the database's file."""
    folder = os.environ.get("STANDIN_DB_DIR")
    if folder is None:
        message = "the stand-in makes backups of its own database only"
        raise sites.CommandError(message)
    return Path(folder) / f"{site.config['db_name']}.sqlite"


def backup(site: Site, wanted: Path | None) -> None:
    """Write a dump to a path, or under a name of its own; where it is, is printed."""
    site.require()
    Database(site).close()
    folder = site.folder / "private" / "backups"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%d_%H%M%S')}-{site.name.replace('.', '_')}-database.sql.gz"
    path = wanted or folder / name
    connection = sqlite3.connect(_file(site))
    try:
        path.write_bytes(gzip.compress("\n".join(connection.iterdump()).encode()))
    finally:
        connection.close()
    print(f"Backup Summary for {site.name} at {time.strftime('%Y-%m-%d %H:%M:%S')}")
    print(f"Database: {sites.SITES / path}")


def restore(site: Site, dump: Path, user: str, password: str) -> None:
    """Replace the database's content by a dump's."""
    site.require()
    # A path that is relative to the bench, like the framework's own.
    dump = dump if dump.exists() else Path("..") / dump
    script = gzip.decompress(dump.read_bytes()).decode()
    name = site.config["db_name"]
    root = connect_root(site, user, password)
    with root.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
        cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        cursor.execute(f"GRANT ALL PRIVILEGES ON `{name}`.* TO '{name}'@'%'")
    root.close()
    connection = sqlite3.connect(_file(site))
    try:
        connection.executescript(script)
    finally:
        connection.close()
    cache.forget_installed_apps(site)
    print(f"Site {site.name} has been restored")
