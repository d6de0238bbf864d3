"""What state a site is in, from what the config files and the database say. Frappe is not asked: it may lie."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_DENIED = (1044, 1045, 1698)
_UNKNOWN_DATABASE = 1049
_FIRST_CLIENT_ERROR = 2000
_NOT_READY = (0, 1040, 1053, 1203, 1226)
"""Server errors after which it is worth waiting: too many connections, shutting down."""
THREE_CAUSES = "the password is wrong, the user is missing, or the user is bound to another host"


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
    """

    kind: Kind
    reason: str = ""
    apps: tuple[str, ...] = ()
    database: bool | None = None
    root_error: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.reason}" if self.reason else self.kind.value


def classify(answer: Mapping[str, Any]) -> State:
    """Return the state that an ``inspect`` answer of the shim describes."""
    root = answer.get("root") or {}
    kind, reason, apps = _of_site(answer)
    return State(kind, reason, apps, root.get("database"), "" if root.get("ok", True) else str(root.get("error")))


def unreachable(answer: Mapping[str, Any]) -> str | None:
    """Return why the database server cannot be used yet, or None.

    A server that refuses a login has answered: whether the login is right is no question of waiting.
    """
    for part in ("login", "root", "server"):
        found = answer.get(part)
        if found and (found["ok"] or not _is_waiting(found["errno"])):
            return None
    reasons = [f"{found['error']}" for part in ("login", "root", "server") if (found := answer.get(part))]
    return "; ".join(dict.fromkeys(reasons)) or "no login was tried"


def _is_waiting(number: int) -> bool:
    return number >= _FIRST_CLIENT_ERROR or number in _NOT_READY


def _of_site(answer: Mapping[str, Any]) -> tuple[Kind, str, tuple[str, ...]]:
    if not answer["folder"]:
        return Kind.ABSENT, "there is no folder of that name", ()
    if answer["config"] != "ok":
        detail = f" ({answer['config_error']})" if answer.get("config_error") else ""
        return Kind.HALF_MADE, f"its site_config.json is {answer['config']}{detail}", ()
    login = answer["login"]
    if login["ok"]:
        return _of_database(login)
    if login["errno"] == _UNKNOWN_DATABASE:
        return Kind.HALF_MADE, f"its database {answer.get('db_name')} does not exist", ()
    if login["errno"] in _DENIED:
        return Kind.UNREACHABLE, f"error {login['errno']}: {THREE_CAUSES}", ()
    return Kind.UNREACHABLE, f"error {login['errno']}: {login['error']}", ()


def _of_database(login: Mapping[str, Any]) -> tuple[Kind, str, tuple[str, ...]]:
    if not login["defaults"]:
        return Kind.HALF_MADE, f"its database has {login['tables']} tables, but not tabDefaultValue", ()
    apps = tuple(map(str, login["apps"] or ()))
    if "frappe" not in apps:
        return Kind.HALF_MADE, "frappe is not among its installed apps", apps
    if not login["administrator"]:
        return Kind.HALF_MADE, "it has no user Administrator", apps
    return Kind.HEALTHY, "", apps
