"""The environment: everything the original image takes, all problems at once, no secret anywhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate.errors import ConfigError
from frappe_bootstrap import config_files, image, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(settings.__file__).parent


def problems(environ: Mapping[str, str]) -> str:
    """Return the message of the refusal."""
    with pytest.raises(ConfigError) as caught:
        settings.load(environ)
    assert caught.value.exit_code == 78
    return str(caught.value)


def test_every_variable_that_is_read_is_documented_and_the_other_way_round(environ: dict[str, str]) -> None:
    """The table in the module, the list in the code, and what is really looked up are the same."""
    documented = set(re.findall(r"^``([A-Z_]+)``  ", settings.__doc__ or "", re.MULTILINE))
    looked_up: set[str] = set()

    class Watching(dict[str, str]):
        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            looked_up.add(key)
            return super().get(key, default)

    settings.load(Watching(environ))
    assert documented == settings.VARIABLES
    assert {name for name in looked_up if not name.endswith("_FILE")} == settings.VARIABLES
    assert {name.removesuffix("_FILE") for name in looked_up if name.endswith("_FILE")} == settings.SECRETS


def test_our_modules_hide_no_module_of_the_standard_library() -> None:
    """The shim runs with our folder first in its path until it has read its request."""
    assert {path.stem for path in PACKAGE.glob("*.py")}.isdisjoint(sys.stdlib_module_names)


def test_the_least_environment_is_enough(environ: dict[str, str]) -> None:
    """Secrets of root and administrator are needed only where a site has to be created."""
    found = settings.load(environ)
    assert (found.site, found.revision, found.database.port) == ("erp.example.com", "v1", 3306)
    assert found.lease_url == "redis://redis:6380/0"
    assert found.markers_url.startswith("file:///")
    assert found.redis.socketio == "redis://redis:6381"
    assert re.fullmatch("_[0-9a-f]{16}", found.database.name)


def test_all_problems_are_reported_at_once(plain_bench: Path) -> None:
    """Point 17: one refusal names every variable and how to put it right."""
    text = problems(
        {
            "BENCH_DIR": str(plain_bench / "nowhere"),
            "DB_TYPE": "oracle",
            "DB_PORT": "many",
            "DB_NAME": "a-b",
            "DB_PASS": "it's",
            "REDIS_CACHE_PORT": "tcp://10.0.0.1:6379",
            "SKIP_INIT": "perhaps",
            "APPS": "good ../bad",
            "WAIT_TIMEOUT": "-1",
        }
    )
    names = "SITE DB_HOST REDIS_HOST REDIS_QUEUE_PORT BENCH_DIR DB_TYPE DB_PORT DB_NAME DB_PASS REDIS_CACHE_PORT"
    for name in [*names.split(), "SKIP_INIT", "APPS", "WAIT_TIMEOUT"]:
        assert f"  {name}: " in text
    assert "enableServiceLinks" in text
    assert "it's" not in text


@pytest.mark.parametrize("secret", ['pa"ss', "pa'ss", "pa\\ss", "pa`ss"])
def test_a_database_password_that_the_framework_would_break_is_refused(environ: dict[str, str], secret: str) -> None:
    """operating-frappe 6: it would leave a half-made site."""
    text = problems({**environ, "DB_PASS": secret})
    assert "DB_PASS" in text
    assert secret not in text


@pytest.mark.parametrize("site", ["../etc", "a/b", ".hidden", "assets", "all", "a b", "x" * 65])
def test_a_site_that_is_no_folder_name_is_refused(environ: dict[str, str], site: str) -> None:
    """It becomes a path, a lease name and an argument."""
    assert "  SITE: " in problems({**environ, "SITE": site})


def test_several_sites_are_named_once_each_and_the_first_one_is_site(environ: dict[str, str]) -> None:
    """Point 15; a database name that was given cannot be that of two sites (hazard 2)."""
    found = settings.load({**environ, "SITE": "", "SITES": "a b", "DB_NAME": "shop"})
    assert (found.site, found.names, found.parallel, found.ready_policy) == ("a", ("a", "b"), 2, "any")
    assert (found.of("a").database.name, found.of("b").site) == ("shop", "b")
    assert found.of("b").database.name not in {"shop", ""}
    assert settings.load({**environ, "SITES": "erp.example.com b"}).site == "erp.example.com"
    assert "not the first of SITES" in problems({**environ, "SITES": "a b"})
    assert "named twice: b" in problems({**environ, "SITE": "", "SITES": "a b b"})
    assert "'../x' cannot be" in problems({**environ, "SITE": "", "SITES": "a ../x"})
    assert "  MIGRATE_PARALLEL: " in problems({**environ, "MIGRATE_PARALLEL": "0"})


def test_secrets_come_from_files_and_are_in_no_repr(environ: dict[str, str], tmp_path: Path) -> None:
    """Hazard 32: a trailing newline is not part of a secret; the value and its file together are refused."""
    (tmp_path / "root").write_text("canary-root\n")
    given = {**environ, "DB_ROOT_PASS_FILE": str(tmp_path / "root"), "REDIS_PASS": "canary@/#:"}
    found = settings.load(given)
    assert found.database.root_password == "canary-root"
    assert found.redis.cache == "redis://:canary%40%2F%23%3A@redis:6379"
    assert found.lease_url == "redis://:canary%40%2F%23%3A@redis:6380/0"
    assert "canary" not in repr(found)
    assert found.secrets == {"canary-root", "canary@/#:"}
    assert "both are given" in problems({**given, "DB_ROOT_PASS": "canary-other"})
    assert "cannot read" in problems({**environ, "ADMIN_PASS_FILE": str(tmp_path / "missing")})


def test_the_lease_store_is_chosen_in_order(environ: dict[str, str]) -> None:
    """COORDINATE_URL, else LOCK_REDIS_*, else the queue; a scheme alone is left to coordinate."""
    lock = {"LOCK_REDIS_HOST": "locks", "LOCK_REDIS_PORT": "7000", "LOCK_REDIS_PASS": "p/w"}
    assert settings.load({**environ, **lock}).lease_url == "redis://:p%2Fw@locks:7000/0"
    assert settings.load({**environ, "LOCK_REDIS_PORT": "7001"}).lease_url == "redis://redis:7001/0"
    chosen = settings.load({**environ, **lock, "COORDINATE_URL": "file:///x"})
    assert chosen.lease_url == "file:///x"
    assert any("LOCK_REDIS" in notice for notice in chosen.notices)
    assert settings.load({**environ, "COORDINATE_BACKEND": "etcd"}).lease_url is None


def test_the_lease_length_follows_the_original_variables(environ: dict[str, str]) -> None:
    """Unset means coordinate's own default; a heartbeat of half the length or more is refused."""
    assert settings.load(environ).ttl is None
    assert settings.load({**environ, "LOCK_RENEW_TTL_SECS": "40", "LOCK_HEARTBEAT_SECS": "10"}).ttl == 40
    assert "LOCK_HEARTBEAT_SECS" in problems({**environ, "LOCK_RENEW_TTL_SECS": "40", "LOCK_HEARTBEAT_SECS": "20"})
    assert "LOCK_HEARTBEAT_SECS" in problems({**environ, "LOCK_HEARTBEAT_SECS": "0"})


def test_database_types_that_are_not_mariadb_are_named(environ: dict[str, str]) -> None:
    """Hazard 26: mysql is taken as mariadb with a notice; another server is refused."""
    assert settings.load({**environ, "DB_TYPE": "mysql"}).notices
    postgres = settings.load({**environ, "DB_TYPE": "postgres"}).database
    assert (postgres.kind, postgres.port, postgres.root_user) == ("postgres", 5432, "postgres")
    assert settings.load({**environ, "DB_RDS": "1"}).database.rds
    assert config_files.common_keys(settings.load({**environ, "DB_RDS": "1"}))["rds_db"] == 1
    assert "rds_db" not in config_files.common_keys(settings.load(environ))
    assert "neither mariadb nor postgres" in problems({**environ, "DB_TYPE": "oracle"})


def test_whole_redis_urls_need_a_port_and_make_host_and_ports_optional(environ: dict[str, str]) -> None:
    """Point 16: a URL without a port makes a migration crash (operating-frappe 16)."""
    given = {name: value for name, value in environ.items() if not name.startswith("REDIS_")}
    urls = {"REDIS_CACHE_URL": "rediss://u:canary@c:1/2", "REDIS_QUEUE_URL": "redis://q:2"}
    found = settings.load({**given, **urls})
    assert (found.redis.cache, found.redis.socketio, found.lease_url) == (*urls.values(), "redis://q:2/0")
    assert "canary" in found.secrets
    assert "REDIS_QUEUE_URL" in problems({**given, **urls, "REDIS_QUEUE_URL": "redis://q"})


def test_leases_on_a_server_that_a_build_flushes_are_refused(environ: dict[str, str]) -> None:
    """Hazard 29, operating-frappe 16: a certain build is refused, a possible one warned of, another server is fine."""
    shared = {**environ, "COORDINATE_URL": "rediss://u:canary@REDIS:6379/5"}
    text = problems({**shared, "REBUILD_ASSETS_ON_BOOT": "1"})
    assert "REBUILD_ASSETS_ON_BOOT: a build may flush redis_cache" in text
    assert "LOCK_REDIS_HOST" in text
    assert "canary" not in text
    assert any("leases are on the server of redis_cache" in notice for notice in settings.load(shared).notices)
    assert not settings.load({**shared, "REBUILD_ASSETS_ON_BOOT": "0"}).notices
    for elsewhere in ("file:///leases", "redis://redis:6390", "redis://other", "redis+sentinel://redis:6379/s"):
        apart = {**environ, "COORDINATE_URL": elsewhere, "REBUILD_ASSETS_ON_BOOT": "1"}
        assert not settings.load(apart).notices
    local = {**environ, "REDIS_HOST": "localhost", "COORDINATE_BACKEND": "redis", "REBUILD_ASSETS_ON_BOOT": "1"}
    assert "a build may flush" in problems(local)


def test_one_redis_for_everything_is_said_aloud(environ: dict[str, str]) -> None:
    """operating-frappe 16: flushing the cache empties the queue, too."""
    one = {**environ, **dict.fromkeys(("REDIS_CACHE_PORT", "REDIS_QUEUE_PORT", "REDIS_SOCKETIO_PORT"), "6379")}
    assert any("are one server" in notice for notice in settings.load(one).notices)
    assert not settings.load(environ).notices


def test_apps_are_wanted_once_each_and_new_ones_within_the_lists(environ: dict[str, str]) -> None:
    """Frappe is never one of them; AUTO_INSTALL_NEW_APPS adds the image's."""
    image = ("frappe", "erp", "hr", "crm")
    assert settings.load({**environ, "APPS": "hr frappe hr"}).wanted_apps(image) == ("hr",)
    auto = {"AUTO_INSTALL_NEW_APPS": "1", "AUTO_APPS_DENYLIST": "crm"}
    assert settings.load({**environ, **auto}).wanted_apps(image) == ("erp", "hr")
    assert settings.load({**environ, **auto, "AUTO_APPS_ALLOWLIST": "hr,crm"}).wanted_apps(image) == ("hr",)


def test_without_a_revision_the_image_is_fingerprinted(environ: dict[str, str], plain_bench: Path) -> None:
    """Point 9: patches and document types decide; a version, which hotfixes do not raise, and bundles do not."""
    del environ["IMAGE_REV"]
    first = settings.load(environ).revision
    package = plain_bench / "apps/erp/erp"
    (package / "README").write_text("words")
    (package / "__init__.py").write_text('__version__ = "2"\n')
    (package / "public/dist").mkdir(parents=True)
    assets = image.assets_fingerprint(plain_bench)
    (package / "public/dist/erp.bundle.ABCD.css").touch()
    assert image.assets_fingerprint(plain_bench) != assets
    assert settings.load(environ).revision == first
    (package / "doctype/note/note.json").write_text("{}")
    assert settings.load(environ).revision != first
    (package / "doctype/note/note.json").unlink()
    assert settings.load(environ).revision == first
    (plain_bench / "apps/erp/erp/patches.txt").write_text("erp.patches.p1\n")
    assert settings.load(environ).revision != first


def test_the_command_gets_no_secret_and_no_path_of_one() -> None:
    """Everything else is passed on untouched."""
    given = {name: "x" for secret in settings.SECRETS for name in (secret, f"{secret}_FILE")}
    assert settings.child_environment({**given, "SITE": "s1", "BACKEND": "b"}) == {"SITE": "s1", "BACKEND": "b"}
