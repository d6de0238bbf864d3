"""TLS to the database: what the environment says, for our own logins, for the framework, and for libpq.

The framework knows TLS to MariaDB only with all three files (authority, client certificate, key), and verifies then;
for PostgreSQL it has no keys of its own, but libpq takes the same from the environment of whatever uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frappe_bootstrap.reader import Reader

FILES = ("ca", "cert", "key")
_MODES = {"off": "off", "0": "off", "on": "on", "1": "on", "require": "on", "verify": "verify"}
_LIBPQ = {"ca": "PGSSLROOTCERT", "cert": "PGSSLCERT", "key": "PGSSLKEY"}


@dataclass(frozen=True)
class Tls:
    """How the database is reached: ``off``, ``on`` (encrypted) or ``verify`` (and it is the one of that name)."""

    mode: str = "off"
    ca: str = ""
    cert: str = ""
    key: str = ""

    def keys(self) -> dict[str, object]:
        """Return the framework's keys, which are of use only together; none of them is a secret."""
        found = {f"db_ssl_{name}": getattr(self, name) for name in FILES if getattr(self, name)}
        return found if self.mode != "off" else {}

    def request(self) -> dict[str, object]:
        """Return what the shim has to know."""
        return {"db_ssl": self.mode, **self.keys()} if self.mode != "off" else {}


def load(reader: Reader, kind: str) -> Tls:
    """Read the variables of a database of that kind."""
    mode = reader.choice("DB_SSL", _MODES, "off")
    paths = {name: reader.text(f"DB_SSL_{name.upper()}") for name in FILES}
    for name, path in paths.items():
        if path and not Path(path).is_file():
            reader.problem(f"DB_SSL_{name.upper()}", f"there is no file {path}")
    given = [name for name, path in paths.items() if path]
    if mode == "off":
        if given:
            reader.problem("DB_SSL", "is off, but files for it are given: set it to on or verify")
    elif kind == "mariadb" and len(given) < len(FILES):
        lacking = ", ".join(f"DB_SSL_{name.upper()}" for name in FILES if name not in given)
        reader.problem("DB_SSL", f"the framework uses TLS to MariaDB only with all three files; not given: {lacking}")
    elif mode == "verify" and not paths["ca"]:
        reader.problem("DB_SSL_CA", "is required with DB_SSL=verify")
    elif bool(paths["cert"]) != bool(paths["key"]):
        reader.problem("DB_SSL_CERT", "and DB_SSL_KEY belong together: give both or none")
    return Tls(mode, **paths)


def libpq(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what libpq, in every process that we start, has to find in its environment; its own words win."""
    mode = _MODES.get(environ.get("DB_SSL", "").strip().lower(), "off")
    if mode == "off" or environ.get("DB_TYPE", "").strip().lower() != "postgres":
        return {}
    wanted = {"PGSSLMODE": "verify-full" if mode == "verify" else "require"}
    wanted |= {name: environ.get(f"DB_SSL_{part.upper()}", "").strip() for part, name in _LIBPQ.items()}
    return {name: value for name, value in wanted.items() if value and name not in environ}
