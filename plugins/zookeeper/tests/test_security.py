"""SASL and TLS against real servers; and that no secret is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from tests.certificates import Authority, locked
from zookeeper_ensemble import Ensemble, free_port, standalone

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.testing import OpenBackend, opener
from coordinate.testing.lease_port import granted
from coordinate.testing.watch_port import woken
from coordinate.types import Held, Renewed, Topic
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "s3:cr/et"


@pytest.fixture(scope="module")
def sasl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    """A server that knows one user by DIGEST-MD5."""
    folder = tmp_path_factory.mktemp("sasl")
    users = folder / "jaas.conf"
    module = "org.apache.zookeeper.server.auth.DigestLoginModule"
    users.write_text(f'Server {{ {module} required user_us="{CANARY}"; }};\n')
    provider = "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
    with standalone(folder, provider, java=(f"-Djava.security.auth.login.config={users}",)) as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    """The address of a server that speaks TLS, and only to those with a certificate."""
    folder = tmp_path_factory.mktemp("tls")
    pair = authority.issue("server", "IP:127.0.0.1")
    store = folder / "server.pem"
    store.write_text(pair.key.read_text() + pair.cert.read_text())
    port = free_port()
    lines = (
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"secureClientPort={port}",
        "secureClientPortAddress=127.0.0.1",
        f"ssl.keyStore.location={store}",
        "ssl.keyStore.type=PEM",
        f"ssl.trustStore.location={authority.pair.cert}",
        "ssl.trustStore.type=PEM",
        "ssl.clientAuth=need",
    )
    with standalone(folder, *lines):
        yield f"127.0.0.1:{port}"


def _works(clients: OpenBackend) -> None:
    """Hold, wait, be told, renew: over this connection."""
    client, other = clients(), clients()
    client.ping()
    grant, owner, watch = granted(client, "guarded"), mint(), other.watch()
    assert isinstance(client.renew([grant])[0], Renewed)
    assert isinstance(other.acquire("guarded", owner, 30, queue=watch), Held)
    assert client.release(grant)
    assert woken(watch, Topic("lease", "guarded", owner.nonce))
    watch.close()


def test_sasl(sasl: Ensemble) -> None:
    """The user's nodes are the user's alone."""
    with opener(ZooKeeperBackend, sasl.url("/sasl", f"us:{CANARY.replace('/', '%2F')}@", auth="sasl")) as clients:
        _works(clients)
        assert clients().doctor() == []
        stranger = KazooClient(sasl.hosts)
        stranger.start(timeout=15)
        with pytest.raises(NoAuthError):
            stranger.get_children("/sasl/contract/leases")
        stranger.stop()
        stranger.close()


def test_a_wrong_sasl_password_is_no_outage_and_is_not_shown(sasl: Ensemble) -> None:
    """Kazoo says CONNECTED before the server has refused: nothing is ready before an authenticated round trip."""
    with opener(ZooKeeperBackend, sasl.url("/sasl", "us:CANARY@", auth="sasl"), timeout=5) as clients:
        for operation in (lambda: clients().ping(), lambda: clients().acquire("mine", mint(), 30)):
            with pytest.raises(BackendUnavailable, match="credentials") as refused:
                operation()
            assert "CANARY" not in str(refused.value)


def test_mutual_tls(tls: str, authority: Authority, tmp_path: Path) -> None:
    """With the right files everything works, also with a key under a password; else nothing is sent."""
    pair = authority.issue("client")
    sealed = locked(pair, "CANARY")
    trusted = f"zookeeper://{tls}/tls?tls=true&ssl_ca_certs={authority.pair.cert}"
    certified = f"&ssl_certfile={pair.cert}&ssl_keyfile={pair.key}"
    for files in (certified, f"&ssl_certfile={sealed.cert}&ssl_keyfile={sealed.key}&ssl_password=CANARY"):
        with opener(ZooKeeperBackend, trusted + files) as clients:
            _works(clients)
    (tmp_path / "others").mkdir()
    stranger = Authority(tmp_path / "others")
    theirs = stranger.issue("client")
    for url in (
        trusted,
        f"{trusted}&ssl_certfile={theirs.cert}&ssl_keyfile={theirs.key}",
        f"zookeeper://{tls}/tls?tls=true&ssl_ca_certs={stranger.pair.cert}{certified}",
        f"zookeeper://{tls}/tls",
    ):
        with opener(ZooKeeperBackend, url, timeout=0.8) as clients, pytest.raises(BackendUnavailable) as refused:
            clients().ping()
        assert "CANARY" not in str(refused.value)
    with (
        opener(ZooKeeperBackend, f"{trusted}&ssl_certfile={sealed.cert}&ssl_keyfile={sealed.key}") as clients,
        pytest.raises(ConfigError, match="password"),
    ):
        clients()


def test_the_host_name_is_checked(tls: str, authority: Authority) -> None:
    """The certificate is for an address; a name that leads there is another host, unless the check is switched off."""
    pair = authority.issue("named")
    port = tls.rpartition(":")[2]
    files = f"&ssl_ca_certs={authority.pair.cert}&ssl_certfile={pair.cert}&ssl_keyfile={pair.key}"
    url = f"zookeeper://localhost:{port}/tls?tls=true{files}"
    with opener(ZooKeeperBackend, url, timeout=0.8) as clients, pytest.raises(BackendUnavailable):
        clients().ping()
    with opener(ZooKeeperBackend, f"{url}&ssl_check_hostname=false", timeout=5) as clients:
        clients().ping()
