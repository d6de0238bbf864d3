"""What state a site is in, from what the config files and the database say. Frappe is not asked: it may lie."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from frappe_bootstrap import record

_DENIED = (1044, 1045, 1698)
_UNKNOWN_DATABASE = 1049
_FIRST_CLIENT_ERROR = 2000
_NOT_READY = (0, 1040, 1053, 1203, 1226)
"""Server errors after which it is worth waiting: too many connections, shutting down."""
THREE_CAUSES = "the password is wrong, the user is missing, or the user is bound to another host"


class Login(msgspec.Struct, frozen=True):
    """How one login went, and what was seen there; the shim's words."""

    ok: bool = False
    errno: int = 0
    error: str = ""
    tables: int = 0
    defaults: bool = False
    """Whether there is a table tabDefaultValue, where the installed apps are."""
    apps: object = None
    """What that table says about the installed apps: anything, since people write there, too."""
    administrator: bool = False
    record: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """Our own table's rows: name and JSON text."""
    database: bool | None = None
    """As root sees it: whether the database of a new site, or its user, exists."""


class Answer(msgspec.Struct, frozen=True):
    """What the shim found; a login that was not tried is None."""

    folder: bool = False
    config: str = "missing"
    config_error: str = ""
    db_name: object = ""
    login: Login | None = None
    rotated: bool = False
    """Whether that login took the password of the environment, after the one of the config was refused."""
    root: Login | None = None
    server: Login | None = None


class Kind(enum.Enum):
    """The states of a site."""

    ABSENT = "absent"
    HEALTHY = "healthy"
    HALF_MADE = "half-made"
    UNREACHABLE = "unreachable"


class State(NamedTuple):
    """A site's state.

    Args:
        kind: which.
        reason: how that is known, for people; empty when healthy.
        apps: installed apps by SQL, when healthy.
        database: whether the database that a new site would use exists, as root sees it; None: not asked, no answer.
        root_error: why root could not be asked.
        record: our own record in the database, whatever the kind.
        rotated: whether only the environment's password is let in, and not that of the config.
        database_name: of the site's config, "" if there is no usable one.
    """

    kind: Kind
    reason: str = ""
    apps: tuple[str, ...] = ()
    database: bool | None = None
    root_error: str = ""
    record: record.SiteRecord = record.SiteRecord()
    rotated: bool = False
    database_name: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.reason}" if self.reason else self.kind.value


def classify(answer: Answer) -> State:
    """Return the state that an ``inspect`` answer of the shim describes."""
    root = answer.root or Login(ok=True)
    kind, reason, apps = _of_site(answer)
    ours = record.decode(answer.login.record) if answer.login is not None else record.SiteRecord()
    error, name = "" if root.ok else root.error, str(answer.db_name) if answer.config == "ok" else ""
    return State(kind, reason, apps, root.database, error, ours, answer.rotated, name)


def unreachable(answer: Answer) -> str | None:
    """Return why the database server cannot be used yet, or None.

    A server that refuses a login has answered: whether the login is right is no question of waiting.
    """
    tried = [login for login in (answer.login, answer.root, answer.server) if login is not None]
    if any(login.ok or not _is_waiting(login.errno) for login in tried):
        return None
    return "; ".join(dict.fromkeys(login.error for login in tried)) or "no login was tried"


def _is_waiting(number: int) -> bool:
    return number >= _FIRST_CLIENT_ERROR or number in _NOT_READY


def _of_site(answer: Answer) -> tuple[Kind, str, tuple[str, ...]]:
    if not answer.folder:
        return Kind.ABSENT, "there is no folder of that name", ()
    login = answer.login
    if answer.config != "ok" or login is None:
        detail = f" ({answer.config_error})" if answer.config_error else ""
        return Kind.HALF_MADE, f"its site_config.json is {answer.config}{detail}", ()
    if login.ok:
        return _of_database(login)
    if login.errno == _UNKNOWN_DATABASE:
        return Kind.HALF_MADE, f"its database {answer.db_name} does not exist", ()
    if login.errno in _DENIED:
        # Never evidence that the site is half made or absent: a wrong password looks the same.
        return Kind.UNREACHABLE, f"error {login.errno}: {THREE_CAUSES}", ()
    return Kind.UNREACHABLE, f"error {login.errno}: {login.error}", ()


def _of_database(login: Login) -> tuple[Kind, str, tuple[str, ...]]:
    """Tell a finished site from the stages of a killed new-site, in the order in which they are passed."""
    if not login.defaults:
        return Kind.HALF_MADE, f"its database has {login.tables} tables, but not tabDefaultValue", ()
    apps = tuple(map(str, login.apps)) if isinstance(login.apps, list) else ()
    if "frappe" not in apps:
        return Kind.HALF_MADE, "frappe is not among its installed apps", apps
    if not login.administrator:
        # installed_apps is written before there are users and a password for the first one.
        return Kind.HALF_MADE, "it has no user Administrator", apps
    return Kind.HEALTHY, "", apps
