"""Where things are and what the two config files say: the bench, its apps.txt, one site."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frappe import knobs
from frappe.locks import filelock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

SITES = Path()
BENCH = Path(__file__).parent.parent.parent.parent
COMMON_CONFIG = SITES / "common_site_config.json"
_ENVIRONMENT = {
    "db_host": "FRAPPE_DB_HOST",
    "db_port": "FRAPPE_DB_PORT",
    "db_socket": "FRAPPE_DB_SOCKET",
    "db_type": "FRAPPE_DB_TYPE",
    "redis_cache": "FRAPPE_REDIS_CACHE",
    "redis_queue": "FRAPPE_REDIS_QUEUE",
}


class CommandError(Exception):
    """A refusal: its text is printed and the exit code is 1, as for everything else."""


class SiteMissingError(CommandError):
    """No such folder, or one without site_config.json."""


def apps_of_bench() -> list[str]:
    """Return the lines of apps.txt; without the file nothing works at all."""
    path = SITES / "apps.txt"
    if not path.exists():
        message = "apps.txt Not Found"
        raise CommandError(message)
    return path.read_text().split()


def app_module(app: str, name: str = "hooks") -> ModuleType:
    """Import a module of an app; a missing app raises ModuleNotFoundError."""
    return importlib.import_module(f"{app}.{name}")


def app_lines(app: str, name: str) -> list[str]:
    """Return the lines of a text file of an app."""
    return (Path(str(importlib.import_module(app).__file__)).parent / name).read_text().splitlines()


def _load(path: Path) -> dict[str, Any]:
    """Return one config file; a damaged one is announced on stdout and read as empty."""
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        print(f"{path} is invalid: {error}")  # on stdout, as measured
        return {}
    return loaded


def common_config() -> dict[str, Any]:
    """Return the configuration of all sites, overridden by the environment."""
    config = _load(COMMON_CONFIG)
    return config | {key: os.environ[name] for key, name in _ENVIRONMENT.items() if name in os.environ}


@contextlib.contextmanager
def editing(path: Path) -> Iterator[dict[str, Any]]:
    """Change a config file the framework's way: under its lock, but truncated and rewritten in place."""
    locks = BENCH / "config" if path == COMMON_CONFIG else path.parent / "locks"
    with filelock(locks, "site_config"):
        config = _load(path)
        yield config
        with path.open("w") as file:
            knobs.point("config:truncated", path.name)
            file.write(json.dumps(config, indent=1, sort_keys=True))


class Site:
    """One site folder."""

    def __init__(self, name: str) -> None:
        """Name a site, which may not exist yet."""
        self.name = name
        self.folder = SITES / name

    @property
    def config_path(self) -> Path:
        """Return the path of site_config.json."""
        return self.folder / "site_config.json"

    @property
    def locks(self) -> Path:
        """Return the folder of the site's locks."""
        return self.folder / "locks"

    @property
    def config(self) -> dict[str, Any]:
        """Return what holds for this site: its own file over the common one, the environment over both."""
        common = common_config()
        overrides = {key: common[key] for key, name in _ENVIRONMENT.items() if name in os.environ}
        return common | _load(self.config_path) | overrides

    def require(self) -> None:
        """Refuse a site that is not there."""
        if not self.config_path.exists():
            message = f"Site {self.name} does not exist!"
            raise SiteMissingError(message)

    def open_logs(self) -> None:
        """Open the log files: a missing folder fails here and hides whatever would have been wrong later."""
        if os.environ.get("FRAPPE_STREAM_LOGGING"):
            return
        for path in (BENCH / "logs" / "frappe.log", self.folder / "logs" / "frappe.log"):
            path.open("a").close()

    def make_folders(self) -> None:
        """Make the site's folders."""
        for part in ("locks", "logs", "private/files", "private/backups", "public/files"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    @property
    def default_database_name(self) -> str:
        """Return a hash of the absolute path, so that a second attempt arrives at the same name."""
        digest = hashlib.sha1(str(self.folder.resolve()).encode())  # noqa: S324 - nothing secret
        return f"_{digest.hexdigest()[:16]}"


def progress(what: str, percent: int) -> None:
    """Redraw a progress bar with a carriage return, on stdout."""
    bar = "=" * (percent * 40 // 100)
    end = "\n" if percent == 100 else ""  # noqa: PLR2004 - per cent
    print(f"\r{what} : [{bar:<40}] {percent}%", end=end, file=sys.stdout, flush=True)
