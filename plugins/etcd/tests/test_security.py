"""Encryption, client certificates, users; and that no secret is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from tests.certificates import Authority
from tests.stacks.etcd import Etcd, etcd

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.testing.watch_port import woken
from coordinate.types import Held, Renewed, Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coordinate_etcd.backend import EtcdBackend

CANARY = "can:a/ry"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs the certificates."""
    return Authority(tmp_path)


@pytest.fixture
def guarded(tmp_path: Path, authority: Authority) -> Iterator[Etcd]:
    """An ensemble that speaks TLS only, and only to those with a certificate."""
    server, control = authority.issue("server", "IP:127.0.0.1"), authority.issue("control")
    ca = str(authority.pair.cert)
    files = ("--cert-file", str(server.cert), "--key-file", str(server.key), "--trusted-ca-file", ca)
    ensemble = Etcd(tmp_path, 1, *files, "--client-cert-auth", scheme="https")
    ensemble.trust("--cacert", ca, "--cert", str(control.cert), "--key", str(control.key))
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.remove()


def test_mutual_tls(guarded: Etcd, authority: Authority, opened: Callable[..., EtcdBackend], tmp_path: Path) -> None:
    """With the right files everything works; without each of them the error names it."""
    pair = authority.issue("client")
    trusted = f"ssl_ca_certs={authority.pair.cert}"
    certified = f"ssl_certfile={pair.cert}&ssl_keyfile={pair.key}"
    client = opened(f"{guarded.url}?{trusted}&{certified}")
    grant = granted(client, "encrypted")
    watch, owner = client.watch(), mint()
    assert isinstance(client.acquire("encrypted", owner, 30, queue=watch), Held)
    client.release(grant)
    assert woken(watch, Topic("lease", "encrypted", owner.nonce))
    watch.close()
    (tmp_path / "others").mkdir()
    stranger = Authority(tmp_path / "others").pair.cert
    for url, advice in (
        (f"{guarded.url}?{trusted}", "ssl_certfile"),
        (f"{guarded.url}?ssl_ca_certs={stranger}&{certified}", "ssl_ca_certs"),
        (guarded.url.replace("etcds", "etcd"), "etcds://"),
    ):
        with pytest.raises(BackendUnavailable, match=advice):
            opened(url, timeout=5.0).ping()
    with pytest.raises(BackendUnavailable, match="ssl_server_name"):
        opened(f"{guarded.url}?{trusted}&{certified}&ssl_server_name=elsewhere", timeout=5.0).ping()


def test_tls_to_a_plain_port_says_so(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """The scheme is wrong, not the server."""
    with pytest.raises(BackendUnavailable, match="etcd://"):
        opened(emptied.url.replace("etcd://", "etcds://"), timeout=5.0).ping()


def test_users(tmp_path: Path, opened: Callable[..., EtcdBackend]) -> None:
    """A user with rights on the namespace only; a token that the server forgets is renewed, for watches, too."""
    with etcd(tmp_path, 1, "--auth-token-ttl", "1") as ensemble:
        ensemble.control("user", "add", "root:root")
        ensemble.control("user", "grant-role", "root", "root")
        ensemble.control("role", "add", "limited")
        ensemble.control("role", "grant-permission", "limited", "--prefix=true", "readwrite", "/app/t/")
        ensemble.control("user", "add", f"limited:{CANARY}")
        ensemble.control("user", "grant-role", "limited", "limited")
        ensemble.control("auth", "enable")
        host = ensemble.members[0].address
        url = f"etcd://limited:{quote(CANARY, safe='')}@{host}/app"
        client, other = opened(url), opened(url)
        grant = granted(client, "with-a-user")
        watch, owner = other.watch(), mint()
        assert isinstance(other.acquire("with-a-user", owner, 30, queue=watch), Held)
        token = client._ensemble._token
        time.sleep(3)  # twice as long as the server remembers an unused token
        ensemble.members[0].kill()
        ensemble.members[0].start()
        eventually(lambda: isinstance(client.renew([grant])[0], Renewed), what="the renewal")
        assert client._ensemble._token != token
        assert client.release(grant)
        assert woken(watch, Topic("lease", "with-a-user", owner.nonce))
        watch.close()
        for wrong, advice in (
            (f"etcd://limited:{CANARY[::-1].replace('/', '')}@{host}/app", "user name and password"),
            (f"etcd://{host}/app", "user:password@"),
            (url.removesuffix("/app"), "role lacks"),
        ):
            with pytest.raises(BackendUnavailable, match=advice) as refused:
                opened(wrong).ping()
            assert CANARY not in str(refused.value)
        assert CANARY not in str(client.describe()) + client.store_id + repr(client._checked)


def test_a_user_where_none_is_wanted_does_no_harm(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """As etcd's own clients have it: users may be turned on later."""
    opened(emptied.url.replace("etcd://", f"etcd://user:{CANARY.replace('/', '')}@")).ping()


@pytest.mark.parametrize(
    ("tail", "complaint"),
    [
        ("h:2379?colour=red", "unknown option 'colour'"),
        ("h:2379?ssl_ca_certs=/x", "unknown option"),
        ("h:2379?timeout=nan", "not a number of seconds"),
        ("h:2379/a b", "prefix of keys"),
        (":secret@h:2379", "without a user"),
    ],
)
def test_what_cannot_work_is_refused_at_once(tail: str, complaint: str, opened: Callable[..., EtcdBackend]) -> None:
    """Before anything is tried, and without the password."""
    with pytest.raises(ConfigError, match=complaint) as refused:
        opened(f"etcd://{tail}")
    assert "secret" not in str(refused.value)


def test_files_of_an_encrypted_url_are_looked_at(tmp_path: Path, opened: Callable[..., EtcdBackend]) -> None:
    """Missing, incomplete, or something else altogether."""
    (tmp_path / "no.pem").write_text("hello")
    for options, complaint in (
        (f"ssl_ca_certs={tmp_path}/none", "cannot be read"),
        (f"ssl_ca_certs={tmp_path}/no.pem", "not a PEM file"),
        (f"ssl_certfile={tmp_path}/no.pem", "belong together"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            opened(f"etcds://h?{options}")
