"""Settings from the environment: every variable of the original image, all problems reported at once.

Each variable marked *secret* may also be given as ``NAME_FILE``, the path of a file that holds the value.

=============================  =========================================================================
``SITE``                       required, unless ``SITES`` is given; name of the site, also its folder
``SITES``                      several sites, separated by blanks; ``SITE``, if given, is the first of them
``MIGRATE_PARALLEL``           how many of several sites are worked on at the same time, in all containers; default 2
``READY_POLICY``               ``all`` or ``any`` (default) of several sites: how many must be ready to serve
``IMAGE_REV``                  revision this image brings about; default: the fingerprint of its schema
``APPS``                       apps to install besides frappe, separated by blanks
``SKIP_INIT``                  1: never create a site (exit code 82 when it is missing)
``DB_TYPE``                    ``mariadb`` (default) or ``postgres``; ``mysql`` is taken as mariadb, with a notice
``DB_HOST``                    required; database server
``DB_PORT``                    default 3306, or 5432 for postgres
``DB_NAME``                    database of a new site, the first of several; default: a hash of the site's name
``DB_PASS``                    secret; password of a new site's database user; default: a random one
``DB_ROOT_USER``               default ``root`` or ``postgres``; only used when a site has to be created
``DB_ROOT_PASS``               secret; only needed when a site has to be created
``DB_RDS``                     1: the server's administrator may not grant everything (RDS); default 0
``DB_SSL``                     TLS to the database: ``off`` (default), ``on``, or ``verify`` (its certificate and name)
``DB_SSL_CA``                  file of the authority; for MariaDB the framework needs all three files
``DB_SSL_CERT``                file of the client's certificate
``DB_SSL_KEY``                 file of its key
``ADMIN_PASS``                 secret; only needed when a site has to be created
``REDIS_HOST``                 required, unless both URLs below are given
``REDIS_PASS``                 secret; may be empty
``REDIS_CACHE_PORT``           required, unless ``REDIS_CACHE_URL`` is given
``REDIS_QUEUE_PORT``           required, unless ``REDIS_QUEUE_URL`` is given
``REDIS_SOCKETIO_PORT``        default: the queue's server
``REDIS_CACHE_URL``            secret; whole URL (TLS, user, database number), instead of host and port
``REDIS_QUEUE_URL``            secret; the same for the queue
``LOCK_REDIS_HOST``            server of the leases; default: the queue's server
``LOCK_REDIS_PORT``            default: the queue's port
``LOCK_REDIS_PASS``            secret; default: the queue's password
``LOCK_RENEW_TTL_SECS``        length of a lease in seconds; default: that of coordinate
``LOCK_HEARTBEAT_SECS``        checked against the length (must be below half of it); renewal follows the length
``COORDINATE_URL``             secret; lease store, instead of the LOCK_REDIS variables
``COORDINATE_BACKEND``         a scheme alone: that lease store at its default address
``COORDINATE_MARKERS_URL``     secret; marker store; default: ``.frappe_bootstrap`` in the sites folder
``BENCH_DIR``                  default: ``/home/frappe/frappe-bench`` if that is a bench, else the current folder
``WAIT_TIMEOUT``               seconds to wait for the servers; default 300
``BOOT_TIMEOUT``               seconds to wait for the revision to be ready; default 3600
``STEP_TIMEOUT``               seconds that one attempt at a step may take; then it has failed; default 14400
``BOOTSTRAP_ROLE``             ``auto`` (default); ``follow``: never leads, needs no secret of root; ``once``: ends
                               with 0 when all is done, COMMAND is not started (a Job, an init container)
``BOOTSTRAP_MODE``             ``exec`` (default): COMMAND replaces this process; ``supervise``: it runs under it
``WAITING_ROOM_PORT``          web port on which a page is served until COMMAND starts; default: none
``HEALTH_PORT``                port for ``/livez``, ``/readyz``, ``/status.json`` and ``/metrics``; at other paths it
                               shows the page, too; default: none
``FAILURE_PAGE_SECS``          seconds for which the waiting room shows a failure before the container ends; default 0
``BOOTSTRAP_STATE_DIR``        folder of the file that the probes read; default: in /run, /dev/shm or /tmp
``ON_UPGRADE``                 supervised, when a newer one closes or changes the site: ``unready`` (default), ``stop``
                               (COMMAND gets SIGTERM, then exit code 87), or ``ignore``
``STOP_POLICY``                SIGTERM while a step runs: ``abort`` it at once (default) or ``finish`` it first
``STOP_GRACE``                 seconds that ``finish`` may take; a second signal aborts at once; default 3600
``PRE_CONFIG_HOOK``            program to run before the step config; if it fails, the step has not begun. Its
                               environment: FRAPPE_SITE, BOOTSTRAP_REVISION, BOOTSTRAP_TOKEN, BOOTSTRAP_STEP; those of
                               migrate and apps also have BOOTSTRAP_MIGRATING: the revision that an unfinished
                               migration in the database was bringing, empty if there is none
``POST_CONFIG_HOOK``           the same, after it; if it fails, the step has failed
``PRE_SITE_HOOK``              before a site is created
``POST_SITE_HOOK``             after that
``PRE_MIGRATE_HOOK``           before the migration: the place for a backup
``POST_MIGRATE_HOOK``          after that
``PRE_APPS_HOOK``              before apps are installed
``POST_APPS_HOOK``             after that
``PRE_ASSETS_HOOK``            before assets are linked or built
``POST_ASSETS_HOOK``           after that
``PRE_READY_HOOK``             before the revision is announced as ready
``POST_READY_HOOK``            after that
``HOOK_TIMEOUT``               seconds that a hook may take; default 600
``SITE_TIMEOUT``               instead of STEP_TIMEOUT for the step site
``MIGRATE_TIMEOUT``            the same for the step migrate
``APPS_TIMEOUT``               the same for the step apps
``ASSETS_TIMEOUT``             the same for the step assets
``BAKED_ASSETS``               folder of the image that holds its assets; default ``assets`` in the bench. The same path
                               in all images: sites/assets becomes a link to it
``RETRY_AFTER_SECS``           seconds after which a container that starts tries once more what the fleet has given up;
                               default 3600; `frappe-bootstrap retry` lets it do so at once. A refusal (81, 84 to 86)
                               has changed nothing, and is looked at again after a minute
``STEP_STALE_SECS``            age in seconds at which a marker without a token is taken over; default 1800
``FOLLOWER_WAIT_SECS``         seconds to wait before anything else; default 0
``RUN_MIGRATIONS_ON_BOOT``     ``leader`` (default) or 1; 0 leaves the migration to you
``UPGRADE_MODE``               while a site is migrated that may be served: ``maintenance`` (default), ``live`` or
                               ``refuse`` (exit code 86)
``ALLOW_DOWNGRADE``            1: serve although the database is of a newer revision; it is never migrated backwards
``REVISION_REUSE``             an ``IMAGE_REV`` that now has another schema: ``rerun`` (default) or ``refuse`` (exit 85)
``MAINTENANCE_WAIT_SECS``      seconds until every web process knows of the maintenance; default 61, because newer
                               ones keep their configuration for 60 s; 0: none
``DRAIN_TIMEOUT``              seconds to wait for a site's queued and running jobs; then the attempt has failed;
                               default 300; 0: jobs are not waited for
``AUTO_INSTALL_NEW_APPS``      1: every app of the image is installed, limited by the two lists
``AUTO_APPS_ALLOWLIST``        apps that may be installed so; empty: all
``AUTO_APPS_DENYLIST``         apps that may not
``REBUILD_ASSETS_ON_BOOT``     ``auto`` (default: when names do not resolve), 1 (once a revision), 0 (never)
``ENABLE_SCHEDULER``           1 (default): the scheduler of a site created here is switched on, once
``LEADER_ELECTION_TIMEOUT``    accepted, without effect: members stand for election as long as they wait
``MIGRATION_LOCK_TIMEOUT``     accepted, without effect: nobody serves before the migration is done
``IS_LEADER``                  accepted, without effect: it cannot bypass the lease
=============================  =========================================================================

Everything else (``BACKEND``, ``SOCKETIO``, ``UPSTREAM_REAL_IP_ADDRESS``, ``PROXY_READ_TIMEOUT``, ...) is for the
processes that are started afterwards, and is passed on untouched; the secrets above are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from coordinate.errors import ConfigError
from frappe_bootstrap import operation, servers
from frappe_bootstrap.reader import Reader
from frappe_bootstrap.tls import libpq

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRETS = frozenset(
    {
        "ADMIN_PASS",
        "COORDINATE_MARKERS_URL",
        "COORDINATE_URL",
        "DB_PASS",
        "DB_ROOT_PASS",
        "LOCK_REDIS_PASS",
        "REDIS_CACHE_URL",
        "REDIS_PASS",
        "REDIS_QUEUE_URL",
    }
)
_NO_EFFECT = ("LEADER_ELECTION_TIMEOUT", "MIGRATION_LOCK_TIMEOUT", "IS_LEADER")
VARIABLES = SECRETS.union(
    _NO_EFFECT,
    {
        "SITE",
        "SITES",
        "MIGRATE_PARALLEL",
        "READY_POLICY",
        "IMAGE_REV",
        "APPS",
        "SKIP_INIT",
        "DB_TYPE",
        "DB_HOST",
        "DB_PORT",
        "DB_NAME",
        "DB_RDS",
        "DB_SSL",
        "DB_SSL_CA",
        "DB_SSL_CERT",
        "DB_SSL_KEY",
        "DB_ROOT_USER",
        "REDIS_HOST",
        "REDIS_CACHE_PORT",
        "REDIS_QUEUE_PORT",
        "REDIS_SOCKETIO_PORT",
        "LOCK_REDIS_HOST",
        "LOCK_REDIS_PORT",
        "LOCK_RENEW_TTL_SECS",
        "LOCK_HEARTBEAT_SECS",
        "COORDINATE_BACKEND",
        "BENCH_DIR",
        "WAIT_TIMEOUT",
        "BOOT_TIMEOUT",
        "RETRY_AFTER_SECS",
        "STEP_STALE_SECS",
        "STEP_TIMEOUT",
        "FOLLOWER_WAIT_SECS",
        "RUN_MIGRATIONS_ON_BOOT",
        "UPGRADE_MODE",
        "ALLOW_DOWNGRADE",
        "REVISION_REUSE",
        "MAINTENANCE_WAIT_SECS",
        "DRAIN_TIMEOUT",
        "AUTO_INSTALL_NEW_APPS",
        "AUTO_APPS_ALLOWLIST",
        "AUTO_APPS_DENYLIST",
        "REBUILD_ASSETS_ON_BOOT",
        "ENABLE_SCHEDULER",
    },
    operation.VARIABLES,
)
UPGRADE_MODES = ("maintenance", "live", "refuse")
USUAL_BENCH = "/home/frappe/frappe-bench"
_SITE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_RESERVED_SITES = ("assets", "all")
_DEFAULT_TTL = 300.0


@dataclass(frozen=True)
class Settings:
    """Everything the bootstrap needs to know."""

    site: str
    names: tuple[str, ...]
    parallel: int
    ready_policy: str
    revision: str
    apps: tuple[str, ...]
    auto_apps: bool
    allowed_apps: tuple[str, ...]
    denied_apps: tuple[str, ...]
    create: bool
    migrate: bool
    upgrade_mode: str
    allow_downgrade: bool
    reuse: str
    maintenance_wait: float
    drain_timeout: float
    rebuild: str
    enable_scheduler: bool
    admin_password: str | None = field(repr=False)
    database: servers.Database
    redis: servers.Redis
    lease_url: str | None = field(repr=False)
    markers_url: str = field(repr=False)
    ttl: float | None
    bench: Path
    initial_delay: float
    wait_timeout: float
    boot_timeout: float
    step_timeout: float
    retry_after: float
    stale_after: float
    operation: operation.Operation
    notices: tuple[str, ...]
    secrets: frozenset[str] = field(repr=False)

    @property
    def sites(self) -> Path:
        """Return the sites folder."""
        return self.bench / "sites"

    @property
    def python(self) -> Path:
        """Return the bench's own Python."""
        return self.bench / "env" / "bin" / "python"

    def of(self, name: str) -> Settings:
        """Return the settings of one of the sites; a database name that was given is the first site's."""
        database = self.database if name == self.names[0] else self.database.of(name)
        return replace(self, site=name, database=database)

    def wanted_apps(self, image: tuple[str, ...]) -> tuple[str, ...]:
        """Return the apps that the site shall have besides frappe, in order, given those of the image."""
        extra = [
            app
            for app in image
            if self.auto_apps and app not in self.denied_apps and (not self.allowed_apps or app in self.allowed_apps)
        ]
        return tuple(app for app in dict.fromkeys((*self.apps, *extra)) if app != "frappe")


_MIGRATE = {"leader": "1", "1": "1", "true": "1", "0": "0", "never": "0", "false": "0", "none": "0"}
"""The words of RUN_MIGRATIONS_ON_BOOT: whether anybody migrates."""


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings.

    Raises:
        ConfigError: lists every bad or missing variable with its fix, and no secret.
    """
    reader = Reader(environ)
    names = _sites(reader)
    bench = _bench(reader)
    database = servers.database(reader, names[0])
    redis = servers.redis(reader)
    lease_url = servers.lease_url(reader, redis)
    markers_url = reader.secret("COORDINATE_MARKERS_URL") or f"file://{quote(str(bench / 'sites'))}/.frappe_bootstrap"
    for name in _NO_EFFECT:
        if reader.text(name):
            reader.notices.append(f"{name} has no effect any more")
    settings = Settings(
        site=names[0],
        names=names,
        parallel=reader.count("MIGRATE_PARALLEL", 2),
        ready_policy=reader.choice("READY_POLICY", {"all": "all", "any": "any"}, "any"),
        revision=_revision(reader, bench),
        apps=reader.names("APPS"),
        auto_apps=reader.flag("AUTO_INSTALL_NEW_APPS"),
        allowed_apps=reader.names("AUTO_APPS_ALLOWLIST"),
        denied_apps=reader.names("AUTO_APPS_DENYLIST"),
        create=not reader.flag("SKIP_INIT"),
        migrate=reader.choice("RUN_MIGRATIONS_ON_BOOT", _MIGRATE, "leader") != "0",
        upgrade_mode=reader.choice("UPGRADE_MODE", {mode: mode for mode in UPGRADE_MODES}, "maintenance"),
        allow_downgrade=reader.flag("ALLOW_DOWNGRADE"),
        reuse=reader.choice("REVISION_REUSE", {"rerun": "rerun", "refuse": "refuse"}, "rerun"),
        maintenance_wait=reader.number("MAINTENANCE_WAIT_SECS", 61.0, zero=True),
        drain_timeout=reader.number("DRAIN_TIMEOUT", 300.0, zero=True),
        rebuild=servers.rebuild(reader, redis, lease_url),
        enable_scheduler=reader.flag("ENABLE_SCHEDULER", default=True),
        admin_password=reader.secret("ADMIN_PASS"),
        database=database,
        redis=redis,
        lease_url=lease_url,
        markers_url=markers_url,
        ttl=_ttl(reader),
        bench=bench,
        initial_delay=reader.number("FOLLOWER_WAIT_SECS", 0.0),
        wait_timeout=reader.number("WAIT_TIMEOUT", 300.0),
        boot_timeout=reader.number("BOOT_TIMEOUT", 3600.0),
        step_timeout=reader.number("STEP_TIMEOUT", 14400.0),
        retry_after=reader.number("RETRY_AFTER_SECS", 3600.0, zero=True),
        stale_after=reader.number("STEP_STALE_SECS", 1800.0),
        operation=operation.load(reader, bench),
        notices=tuple(reader.notices),
        secrets=frozenset(reader.secrets),
    )
    if reader.problems:
        raise ConfigError("the environment cannot be used:\n" + "\n".join(f"  {line}" for line in reader.problems))
    return settings


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our secrets and the paths of their files, with what libpq needs for TLS."""
    hidden = SECRETS | {f"{name}_FILE" for name in SECRETS}
    return {**{name: value for name, value in environ.items() if name not in hidden}, **libpq(environ)}


def _sites(reader: Reader) -> tuple[str, ...]:
    """Return the names of the sites, at least one (empty if none was given, which is a problem)."""
    site, several = reader.text("SITE"), reader.text("SITES").split()
    if not several:
        site = reader.text("SITE", required=True)
    names = several or [site]
    for name in filter(None, names):
        if not _SITE.fullmatch(name) or name in _RESERVED_SITES:
            reader.problem(
                "SITES" if several else "SITE",
                f"{name!r} cannot be a site: 1 to 64 letters, digits, . _ -, no leading dot, not 'assets'",
            )
    if several and site and site != several[0]:
        reader.problem("SITE", f"{site!r} is not the first of SITES ({several[0]!r}): unset it, or put it there first")
    twice = sorted(name for name in set(names) if names.count(name) > 1)
    if twice:
        reader.problem("SITES", f"named twice: {', '.join(twice)}")
    if len(names) > 1 and reader.text("DB_NAME"):
        reader.notices.append(f"DB_NAME is taken for {names[0]} only; databases of other new sites are named by a hash")
    return tuple(names)


def _bench(reader: Reader) -> Path:
    chosen = reader.text("BENCH_DIR")
    usual = Path(USUAL_BENCH)
    bench = Path(chosen).absolute() if chosen else usual if (usual / "sites").is_dir() else Path.cwd()
    missing = [part for part in ("apps", "sites", "env/bin/python") if not (bench / part).exists()]
    if missing:
        reader.problem("BENCH_DIR", f"{bench} is not a bench: no {', '.join(missing)} in it")
    return bench


def _ttl(reader: Reader) -> float | None:
    given = bool(reader.text("LOCK_RENEW_TTL_SECS"))
    ttl = reader.number("LOCK_RENEW_TTL_SECS", _DEFAULT_TTL)
    interval = reader.number("LOCK_HEARTBEAT_SECS", min(30.0, ttl / 10))
    if interval >= ttl / 2:
        reader.problem("LOCK_HEARTBEAT_SECS", f"{interval:g} s must be below half of LOCK_RENEW_TTL_SECS ({ttl:g} s)")
    return ttl if given else None


def _revision(reader: Reader, bench: Path) -> str:
    given = reader.text("IMAGE_REV")
    if given:
        if len(given) > 512 or not given.isprintable():  # noqa: PLR2004 -- the limit of coordinate
            reader.problem("IMAGE_REV", "must be 1 to 512 printable characters")
        return given
    from frappe_bootstrap.image import fingerprint  # noqa: PLC0415 -- reads files; only when it is needed

    return fingerprint(bench)
