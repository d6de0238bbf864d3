"""The entry of every command: ``main()`` reads ``sys.argv[1:] = ["frappe", "--site", S, COMMAND, ...]``.

Always leaves by SystemExit with 0 or 1, or lets an exception through, which is a traceback and 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from frappe import installation, knobs, migration, sites, switches

if TYPE_CHECKING:
    from types import ModuleType

_SITELESS = ("new-site", "build", "use", "set-config", "schedule", "worker")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints exit with 1: nothing but 0 and 1 was ever seen."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint."""
        self.exit(1, f"Usage: {self.prog} [OPTIONS]\n\nError: {message}\n")


def _new_site_parser(new_site: argparse.ArgumentParser) -> None:
    new_site.add_argument("site")
    for option in ("name", "password", "host"):
        new_site.add_argument(f"--db-{option}")
    new_site.add_argument("--admin-password")
    new_site.add_argument("--mariadb-user-host-login-scope")
    new_site.add_argument("--db-type", choices=["mariadb", "postgres"])
    new_site.add_argument("--db-port", type=int)
    new_site.add_argument("--db-root-username", "--mariadb-root-username")
    new_site.add_argument("--db-root-password", "--mariadb-root-password")
    new_site.add_argument("--db-socket", "--mariadb-db-socket")
    new_site.add_argument("--source-sql", type=Path)
    new_site.add_argument("--install-app", action="append", default=[])
    new_site.add_argument("--setup-db", action=argparse.BooleanOptionalAction, default=True)
    for flag in ("--no-mariadb-socket", "--verbose", "--force", "--set-default"):
        new_site.add_argument(flag, action="store_true")


def _flags(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, action="store_true")


def _parser() -> argparse.ArgumentParser:
    """Return a parser of all commands with the options that v15 accepts."""
    parser = _Parser(prog="bench", allow_abbrev=False)
    parser.add_argument("--site")
    _flags(parser, "--profile", "--verbose", "--force")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _new_site_parser(commands.add_parser("new-site", allow_abbrev=False))
    install = commands.add_parser("install-app", allow_abbrev=False)
    install.add_argument("apps", nargs="+")
    _flags(install, "--force")
    _flags(commands.add_parser("migrate", allow_abbrev=False), "--skip-failing", "--skip-search-index")
    commands.add_parser("list-apps").add_argument("-f", "--format", choices=["text", "json"], default="text")
    commands.add_parser("execute").add_argument("method")
    build = commands.add_parser("build", allow_abbrev=False)
    build.add_argument("--app", action="append", default=[])
    build.add_argument("--apps", default="")
    _flags(build, "--hard-link", "--production", "--verbose", "--force", "--save-metafiles")
    config = commands.add_parser("set-config", allow_abbrev=False)
    _flags(config, "--parse", "--global")
    config.add_argument("-p", dest="parse", action="store_true")
    config.add_argument("-g", dest="global", action="store_true")
    config.add_argument("key")
    config.add_argument("value")
    commands.add_parser("set-maintenance-mode").add_argument("state", choices=["on", "off"])
    commands.add_parser("scheduler").add_argument("action", choices=["enable", "disable", "pause", "resume"])
    commands.add_parser("use").add_argument("site_to_use")
    commands.add_parser("ready-for-migration")
    commands.add_parser("backup", allow_abbrev=False).add_argument("--backup-path-db", type=Path)
    restore = commands.add_parser("restore", allow_abbrev=False)
    restore.add_argument("dump", type=Path)
    restore.add_argument("--db-root-username", "--mariadb-root-username", default="root")
    restore.add_argument("--db-root-password", "--mariadb-root-password", default="")
    uninstall = commands.add_parser("uninstall-app", allow_abbrev=False)
    uninstall.add_argument("app")
    _flags(uninstall, "--yes", "--no-backup")
    commands.add_parser("schedule")
    commands.add_parser("worker").add_argument("--queue", default="")
    commands.add_parser("set-admin-password").add_argument("password", nargs="?")
    return parser


def _sites_meant(options: argparse.Namespace) -> list[sites.Site]:
    """Return the sites a command is for: ``--site`` (a name or ``all``), FRAPPE_SITE, or the default site."""
    common = sites.common_config()
    name = options.group_site or os.environ.get("FRAPPE_SITE") or common.get("default_site")
    if not name:
        message = "Please specify --site sitename"
        raise sites.CommandError(message)
    if name != "all":
        return [sites.Site(name)]
    return [sites.Site(path.parent.name) for path in sorted(sites.SITES.glob("*/site_config.json"))]


def _command_module(name: str) -> ModuleType:
    """Import what only one command needs, because every command pays for every import."""
    return importlib.import_module(f"frappe.{name}")


def _run_siteless(options: argparse.Namespace) -> int:
    if options.command == "new-site":
        options.force = options.force or options.group_force
        _command_module("creation").new_site(options.site, options)
    elif options.command == "build":
        _command_module("assets").build(
            [*options.app, *filter(None, options.apps.split(","))], hard_link=options.hard_link
        )
    elif options.command in {"schedule", "worker"}:
        _command_module("background").live(options.command, getattr(options, "queue", ""))
    elif options.command == "use":
        switches.use(sites.Site(options.site_to_use))
    else:
        target = None if getattr(options, "global") else _sites_meant(options)[0]
        switches.set_config(target, options.key, options.value, parse=options.parse)
    return 0


def _run_on_site(site: sites.Site, options: argparse.Namespace) -> int:
    if options.command == "install-app":
        return installation.install_app(site, options.apps, force=options.force or options.group_force)
    if options.command in {"backup", "restore"}:
        backups = _command_module("backups")
        if options.command == "backup":
            backups.backup(site, options.backup_path_db)
        else:
            backups.restore(site, options.dump, options.db_root_username, options.db_root_password)
        return 0
    actions = {
        "migrate": lambda: migration.migrate(site, skip_failing=options.skip_failing),
        "list-apps": lambda: switches.list_apps(site, options.format),
        "execute": lambda: switches.execute(site, options.method),
        "set-maintenance-mode": lambda: switches.set_maintenance_mode(site, options.state),
        "scheduler": lambda: switches.scheduler(site, options.action),
        "ready-for-migration": lambda: switches.ready_for_migration(site),
        "uninstall-app": lambda: installation.uninstall_app(site, options.app),
        "set-admin-password": lambda: switches.set_admin_password(site, options.password),
    }
    actions[options.command]()
    return 0


def _check_apps() -> None:
    """Import every app of apps.txt; a missing one is a traceback on stderr, and the command goes on."""
    for app in sites.apps_of_bench():
        try:
            sites.app_module(app)
        except ModuleNotFoundError:
            traceback.print_exc()


def _dispatch(argv: list[str]) -> int:
    if argv[:1] != ["frappe"]:
        message = f"Error: No such command {argv[0] if argv else ''!r}."
        raise sites.CommandError(message)
    _check_apps()
    group, rest = _split_group(argv[1:])
    options = _parser().parse_args(rest)
    options.group_site, options.group_force = group.site, group.force
    knobs.record("begin", command=options.command)
    code = 1
    try:
        if options.command in _SITELESS:
            code = _run_siteless(options)
        else:
            code = max((_run_on_site(site, options) for site in _sites_meant(options)), default=0)
    finally:
        knobs.record("end", command=options.command, code=code)
    return code


def _split_group(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the group's options off the front, since a command may have a ``--force`` of its own."""
    group = _Parser(prog="bench", allow_abbrev=False, add_help=False)
    group.add_argument("--site")
    _flags(group, "--profile", "--verbose", "--force")
    end = 0
    while end < len(argv) and argv[end].startswith("--"):
        end += 2 if argv[end] == "--site" else 1
    return group.parse_args(argv[:end]), argv[end:]


def main() -> NoReturn:
    """Run the command of ``sys.argv`` and exit."""
    try:
        sys.exit(_dispatch(sys.argv[1:]))
    except sites.CommandError as error:
        print(error)
        sys.exit(1)
    except (EOFError, KeyboardInterrupt):
        print("Aborted!", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
