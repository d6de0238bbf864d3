"""new-site: stages in the measured order, nothing rolled back when one of them fails or the process dies."""

from __future__ import annotations

import getpass
import json
import secrets
from typing import TYPE_CHECKING, Any

from frappe import cache, installation, knobs, sites
from frappe.apps import log_patch, patches_of
from frappe.database import IMPORTED, Database, connect_root, table_of
from frappe.locks import filelock

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import pymysql

    from frappe.sites import Site

# 25 tables in steps of four per cent; those that other commands look for come where they really did.
_DOCTYPES = tuple(
    {8: "Installed Application", 21: "User", 24: "Patch Log"}.get(index, f"Kind {index}") for index in range(25)
)


def new_site(name: str, options: argparse.Namespace) -> None:
    """Make a site. An existing folder is refused, an existing site_config.json wins over the arguments."""
    site = sites.Site(name)
    sites.apps_of_bench()
    if site.folder.exists() and not options.force:
        message = f"Site {name} already exists"
        raise sites.CommandError(message)
    if options.db_type == "postgres":
        message = "the stand-in bench knows MariaDB only"
        raise NotImplementedError(message)
    knobs.point("new-site:begin")
    site.make_folders()
    knobs.point("new-site:site_dir")
    with filelock(site.locks, "bench_new_site"):
        knobs.point("new-site:locked")
        _write_config(site, options)
        knobs.point("new-site:config")
        if options.setup_db:
            _set_up_database(site, options)
        database = Database(site)
        _import_sql(database, options.source_sql)
        _install_frappe(site, database, options)
        for app in options.install_app:
            installation.install(site, database, app, force=options.force)
        database.set_single("System Settings", "enable_scheduler", "0")
        print("*** Scheduler is disabled ***")
        database.close()
    if options.set_default:
        with sites.editing(sites.COMMON_CONFIG) as config:
            config["default_site"] = name
    knobs.point("new-site:end")


def _write_config(site: Site, options: argparse.Namespace) -> None:
    if site.config_path.exists():
        return
    config: dict[str, Any] = {
        "db_name": options.db_name or site.default_database_name,
        "db_password": options.db_password or secrets.token_urlsafe(12),
    }
    for key in ("db_type", "db_host", "db_port", "db_socket"):
        if value := getattr(options, key):
            config[key] = value
    site.config_path.write_text(json.dumps(config, indent=1, sort_keys=True))


def _set_up_database(site: Site, options: argparse.Namespace) -> None:
    """Make user and database as root. The password goes into the text as it is: a quote breaks it."""
    config = site.config
    user = options.db_root_username or config.get("root_login") or "root"
    password = options.db_root_password or config.get("root_password")
    if password is None:
        password = getpass.getpass("MySQL root password: ")
    root = connect_root(site, user, password)
    name, scope = config["db_name"], options.mariadb_user_host_login_scope
    cursor = root.cursor()
    if options.no_mariadb_socket:
        scope = "%"
    if scope is None:
        cursor.execute("SELECT USER()")
        scope = str(cursor.fetchone()[0]).rpartition("@")[2]
    _replace_database(cursor, name, scope, str(config["db_password"]), force=options.force)
    root.close()


def _replace_database(cursor: pymysql.cursors.Cursor, name: str, scope: str, password: str, *, force: bool) -> None:
    cursor.execute("SHOW DATABASES")
    exists = name in [row[0] for row in cursor.fetchall()]
    if exists and not force:
        message = f"Database {name} already exists, please drop it or pass `--force`."
        raise sites.CommandError(message)
    cursor.execute(f"DROP USER IF EXISTS '{name}'@'{scope}'")
    cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
    cursor.execute(f"CREATE USER '{name}'@'{scope}' IDENTIFIED BY '{password}'")
    knobs.point("new-site:db_user")
    cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
    cursor.execute(f"GRANT ALL PRIVILEGES ON `{name}`.* TO '{name}'@'{scope}'")
    cursor.execute("FLUSH PRIVILEGES")
    knobs.point("new-site:db")


def _import_sql(database: Database, source: Path | None) -> None:
    """Replace the base tables, so that a half-full database is no obstacle."""
    print("Importing sql file...")
    if source is not None:
        for statement in filter(str.strip, source.read_text().split(";\n")):
            database.sql(statement)
    for number, doctype in enumerate(IMPORTED, 1):
        database.sql(f"DROP TABLE IF EXISTS `{table_of(doctype)}`")
        database.make_table(doctype)
        knobs.nap(0.1)
        knobs.point("new-site:sql_import", str(number))
    database.make_table("Global Search Entry")
    knobs.point("new-site:tables14")


def _install_frappe(site: Site, database: Database, options: argparse.Namespace) -> None:
    print("\nInstalling frappe...")
    for index, doctype in enumerate(_DOCTYPES, 1):
        database.make_table(doctype)
        percent = index * 100 // len(_DOCTYPES)
        sites.progress("Updating DocTypes for frappe", percent)
        knobs.nap(0.55)
        knobs.point("new-site:doctypes", str(percent))
    database.set_installed_apps(["frappe"])
    cache.forget_installed_apps(site)
    knobs.point("new-site:installed_apps")
    # The file's password beats the argument here, although for root it is the other way round.
    password = site.config.get("admin_password") or options.admin_password or _asked_twice()
    for user in ("Administrator", "Guest"):
        database.sql("REPLACE INTO `tabUser` (name, enabled) VALUES (%s, 1)", user)
    database.set_password("Administrator", password)
    for patch in patches_of("frappe"):
        log_patch(database, patch)
    database.commit()
    knobs.nap(2)
    knobs.point("new-site:admin")


def _asked_twice() -> str:
    first = getpass.getpass("Set Administrator password: ")
    while getpass.getpass("Re-enter Administrator password: ") != first:
        print("\nPasswords do not match")
        first = getpass.getpass("Set Administrator password: ")
    return first
