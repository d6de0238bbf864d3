"""SQL on the site's database, in words that a real MariaDB server understands as well."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pymysql

if TYPE_CHECKING:
    from frappe.sites import Site

# What the first SQL file makes. The last one is the framework's own sign of a usable database.
IMPORTED = (
    "DocField",
    "DocPerm",
    "DocType Action",
    "DocType Link",
    "DocType State",
    "DocType",
    "Series",
    "Sessions",
    "Singles",
    "File",
    "Auth Entry",
    "Event Sequence",
    "DefaultValue",
)
_COLUMNS = {
    "Singles": "doctype VARCHAR(140), field VARCHAR(140), value TEXT",
    "Auth Entry": "doctype VARCHAR(140), name VARCHAR(140), fieldname VARCHAR(140), password TEXT, "
    "PRIMARY KEY (doctype, name, fieldname)",
    "DefaultValue": "name VARCHAR(140) PRIMARY KEY, parent VARCHAR(140), parenttype VARCHAR(140), "
    "defkey VARCHAR(140), defvalue TEXT",
    "Patch Log": "name VARCHAR(140) PRIMARY KEY, patch TEXT, skipped INT DEFAULT 0, traceback TEXT",
    "Installed Application": "name VARCHAR(140) PRIMARY KEY, app_name VARCHAR(140), "
    "app_version VARCHAR(140), git_branch VARCHAR(140), idx INT",
    "User": "name VARCHAR(140) PRIMARY KEY, enabled INT",
    "Hook Run": "name VARCHAR(140) PRIMARY KEY, hook VARCHAR(140)",
}
_NAMES = {"Auth Entry": "__Auth"}


def table_of(doctype: str) -> str:
    """Return the table of a document type."""
    return _NAMES.get(doctype, f"tab{doctype}")


def connect_root(site: Site, user: str, password: str) -> pymysql.Connection:
    """Connect as the server's root."""
    return pymysql.connect(user=user, password=password, autocommit=True, **_address(site))


def _address(site: Site) -> dict[str, Any]:
    config = site.config
    if socket := config.get("db_socket"):
        return {"unix_socket": socket}
    address = {"host": config.get("db_host") or "127.0.0.1", "port": int(config.get("db_port") or 3306)}
    files = {name: config.get(f"db_ssl_{name}") for name in ("ca", "cert", "key")}
    # Only all three together mean anything.
    return {**address, "ssl": files} if all(files.values()) else address


class Database:
    """The site user's one connection; nothing is committed until someone says so."""

    def __init__(self, site: Site) -> None:
        """Connect with what the site's configuration says."""
        config = site.config
        if not config.get("db_name"):
            raise AssertionError("db_name missing")  # noqa: EM101, TRY003 - the framework's own text
        self.name: str = config["db_name"]
        self._connection = pymysql.connect(
            user=self.name,
            password=config.get("db_password") or "",
            database=self.name,
            charset="utf8mb4",
            **_address(site),
        )

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def commit(self) -> None:
        """Commit."""
        self._connection.commit()

    def rollback(self) -> None:
        """Roll back."""
        self._connection.rollback()

    def close(self) -> None:
        """Close."""
        self._connection.close()

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        return [row[0] for row in self.sql("SHOW TABLES")]

    def make_table(self, doctype: str) -> None:
        """Create the table of a document type unless it is there."""
        columns = _COLUMNS.get(doctype, "name VARCHAR(140) PRIMARY KEY, modified VARCHAR(40)")
        self.sql(f"CREATE TABLE IF NOT EXISTS `{table_of(doctype)}` ({columns})")

    def installed_apps(self) -> list[str]:
        """Return the truth: the row, or nothing if row or table are absent."""
        if table_of("DefaultValue") not in self.tables():
            return []
        query = "SELECT defvalue FROM `tabDefaultValue` WHERE parent = %s AND defkey = %s"
        rows = self.sql(query, "__global", "installed_apps")
        return list(json.loads(rows[0][0])) if rows else []

    def set_installed_apps(self, apps: list[str]) -> None:
        """Write the row and commit, before any after_install has run."""
        columns = "name, parent, parenttype, defkey, defvalue"
        query = f"REPLACE INTO `tabDefaultValue` ({columns}) VALUES (%s, %s, %s, %s, %s)"  # noqa: S608
        self.sql(query, "installed_apps", "__global", "__default", "installed_apps", json.dumps(apps))
        self.commit()

    def recorded_applications(self) -> list[tuple[str, str, str]]:
        """Return what the last migrate wrote down; this is all that list-apps looks at."""
        query = "SELECT app_name, app_version, git_branch FROM `tabInstalled Application` ORDER BY idx"
        return [(row[0], row[1], row[2]) for row in self.sql(query)]

    def record_applications(self, applications: list[tuple[str, str]]) -> None:
        """Write the record anew."""
        self.sql("DELETE FROM `tabInstalled Application`")
        for index, (app, version) in enumerate(applications, 1):
            query = "INSERT INTO `tabInstalled Application` VALUES (%s, %s, %s, %s, %s)"
            self.sql(query, app, app, version, "version-15", index)
        self.commit()

    def set_single(self, doctype: str, field: str, value: str) -> None:
        """Set a field of a single document."""
        self.sql("DELETE FROM `tabSingles` WHERE doctype = %s AND field = %s", doctype, field)
        query = "INSERT INTO `tabSingles` (doctype, field, value) VALUES (%s, %s, %s)"
        self.sql(query, doctype, field, value)
        self.commit()

    def set_password(self, user: str, password: str) -> None:
        """Store a salted hash."""
        salt = os.urandom(8).hex()
        digest = hashlib.sha256((salt + password).encode()).hexdigest()
        query = "REPLACE INTO `__Auth` (doctype, name, fieldname, password) VALUES (%s, %s, %s, %s)"
        self.sql(query, "User", user, "password", f"$standin${salt}${digest}")

    def count_hook(self, hook: str) -> None:
        """Leave a trace of a hook that ran, so that tests can count its runs."""
        self.make_table("Hook Run")
        self.sql("INSERT INTO `tabHook Run` (name, hook) VALUES (%s, %s)", os.urandom(8).hex(), hook)
