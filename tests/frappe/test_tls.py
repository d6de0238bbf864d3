"""TLS to the database: a real MariaDB that lets nobody in without it, and what the variables may say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from coordinate.errors import ConfigError
from frappe_bootstrap import settings, tls
from tests.certificates import Authority
from tests.frappe.test_databases import Site
from tests.stacks.databases import ROOT_PASSWORD, Server, mariadb, postgres
from tests.standin.fleet import make_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from frappe_bootstrap.inspection import Login
    from tests.frappe.conftest import Fleet


FILES = ("DB_SSL_CA", "DB_SSL_CERT", "DB_SSL_KEY")
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority of server and clients."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> dict[str, str]:
    """Return the variables of a client."""
    client = authority.issue("client")
    return dict(zip(FILES, map(str, (authority.pair.cert, client.cert, client.key)), strict=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority, files: dict[str, str]) -> Iterator[Server]:
    """Run a server whose certificate is for 127.0.0.1 only."""
    pair = authority.issue("server", "IP:127.0.0.1")
    words = [f"--ssl-ca={authority.pair.cert}", f"--ssl-cert={pair.cert}", f"--ssl-key={pair.key}"]
    client = {"ca": files["DB_SSL_CA"], "cert": files["DB_SSL_CERT"], "key": files["DB_SSL_KEY"]}
    with mariadb(tmp_path_factory.mktemp("database"), *words, "--require-secure-transport=ON", ssl=client) as running:
        running.sql("ALTER USER 'root'@'%' REQUIRE X509")
        yield running


@pytest.fixture
def secure(fleet: Fleet, server: Server, files: dict[str, str]) -> Fleet:
    """Return a fleet that is told to use TLS."""
    for number in range(2):
        path = fleet.root / f"bench-{number}"
        fleet.benches.append(
            make_bench.make_bench(path, ["demo_app"], real_pymysql=True, apps_txt=False, sites=fleet.sites)
        )
    fleet.environ |= {**files, "DB_SSL": "verify", "DB_PORT": str(server.port), "DB_ROOT_PASS": ROOT_PASSWORD}
    return fleet


def test_a_whole_boot_over_tls_to_a_server_that_demands_it(secure: Fleet, server: Server) -> None:
    """Point 21: root's, the site's and the framework's logins; the framework finds its keys, the site serves."""
    code, out, err = secure.run("echo", "serving")
    assert (code, out) == (0, "serving\n"), err
    common = json.loads((secure.sites / "common_site_config.json").read_text())
    assert {common[f"db_ssl_{name}"] for name in tls.FILES} == {
        secure.environ[f"DB_SSL_{n.upper()}"] for n in tls.FILES
    }
    name = json.loads((secure.sites / "s1" / "site_config.json").read_text())["db_name"]
    assert server.sql("SELECT COUNT(*) FROM __frappe_bootstrap WHERE name = 'revision'", name) == [(1,)]
    server.sql(f"ALTER USER '{name}'@'%' REQUIRE X509")
    assert secure.run("echo", "serving", IMAGE_REV="2")[:2] == (0, "serving\n")


@pytest.mark.parametrize("change", ["no files", "another authority", "another name"])
def test_a_server_that_cannot_be_trusted_or_does_not_trust_us_makes_no_site(
    secure: Fleet, tmp_path: Path, change: str
) -> None:
    """What cannot be trusted is waited for (69); who shows no certificate is not let in as root (81)."""
    environ, code, reason = {
        "no files": ({"DB_SSL": "off", **dict.fromkeys(FILES, "")}, 81, "does not let root in"),
        "another authority": ({"DB_SSL_CA": str(Authority(tmp_path, "stranger").pair.cert)}, 69, UNTRUSTED),
        "another name": ({"DB_HOST": "localhost"}, 69, UNTRUSTED),
    }[change]
    found, out, err = secure.run("echo", "serving", WAIT_TIMEOUT="1", **environ)
    assert (found, out) == (code, ""), err
    assert reason in err
    assert not (secure.sites / "s1").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"DB_SSL_KEY": ""}, "DB_SSL: the framework uses TLS to MariaDB only with all three files"),
        ({"DB_SSL": "off"}, "DB_SSL: is off, but files"),
        ({"DB_SSL_CA": "/nowhere"}, "DB_SSL_CA: there is no file /nowhere"),
        ({"DB_TYPE": "postgres", "DB_SSL_CA": ""}, "DB_SSL_CA: is required"),
        ({"DB_TYPE": "postgres", "DB_SSL_KEY": ""}, "DB_SSL_CERT: and DB_SSL_KEY belong together"),
    ],
)
def test_what_would_end_in_an_open_connection_is_refused(
    environ: dict[str, str], files: dict[str, str], change: dict[str, str], words: str
) -> None:
    """78 before anything starts."""
    with pytest.raises(ConfigError, match=words):
        settings.load({**environ, **files, "DB_SSL": "verify", **change})


def test_libpq_finds_it_in_the_environment_of_every_process(environ: dict[str, str], files: dict[str, str]) -> None:
    """The framework has no keys for PostgreSQL; what an operator has set for libpq stays."""
    given = {**environ, **files, "DB_TYPE": "postgres", "DB_SSL": "verify", "PGSSLKEY": "/own"}
    found = settings.child_environment(given)
    wanted = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": files["DB_SSL_CA"], "PGSSLKEY": "/own"}
    assert {name: found[name] for name in wanted} == wanted
    assert "PGSSLMODE" not in settings.child_environment({**given, "DB_TYPE": "mariadb"})
    assert "PGSSLMODE" not in settings.child_environment({**given, "DB_SSL": "off"})


def test_postgresql_is_reached_over_tls_and_a_stranger_is_not_believed(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Point 21: the server lets nobody in without; the shim's words decide, and the name is looked at."""
    stranger = str(Authority(tmp_path, "stranger").pair.cert)
    own = str(authority.pair.cert)
    with postgres(tmp_path, authority.issue("postgres", "IP:127.0.0.1")) as server:
        server.make("site", "canary")
        site = Site(tmp_path, server)
        site.configure(db_name="site", db_password="canary")
        address = {"db_type": "postgres", "db_host": "127.0.0.1", "db_port": server.port}

        def login(**words: str) -> Login:
            """Look at the site with these words about TLS."""
            found = site.answer(server={**address, **words}).login
            assert found is not None
            return found

        assert login(db_ssl="verify", db_ssl_ca=own).ok
        assert login(db_ssl="on").ok
        untrusted = login(db_ssl="verify", db_ssl_ca=stranger)
        assert (untrusted.ok, "certificate verify failed" in untrusted.error) == (False, True)
        misnamed = login(db_ssl="verify", db_ssl_ca=own, db_host="localhost")
        assert (misnamed.ok, "does not match host name" in misnamed.error) == (False, True)
        monkeypatch.setenv("PGSSLMODE", "disable")
        assert not login().ok
        assert login(db_ssl="on").ok
