"""Encrypted connections: who is trusted, who is refused, and what each refusal tells the operator to do."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, NamedTuple

import pytest

from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import Held, Renewed, Topic
from coordinate.url import parse
from tests.certificates import Authority, Pair, locked
from tests.servers import RedisServer, free_port, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Site(NamedTuple):
    """A server that speaks TLS on one port and plain Redis on another."""

    server: RedisServer
    port: int
    authority: Pair
    client: Pair
    stranger: Pair
    """A client certificate of an authority that the server does not know."""

    def url(self, *options: str, host: str = "localhost", port: int = 0) -> str:
        """Return a URL with the right authority and the given options."""
        query = "&".join((f"ssl_ca_certs={self.authority.cert}", *options))
        return f"rediss://{host}:{port or self.port}/0?{query}"


def with_certificate(pair: Pair) -> str:
    """Return the options for a client certificate."""
    return f"ssl_certfile={pair.cert}&ssl_keyfile={pair.key}"


@pytest.fixture(scope="module", params=["no", "yes"], ids=["one-sided", "mutual"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a server that wants a client certificate, or none."""
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = Authority(folder), Authority(folder, "stranger")
    of_server, port = ours.issue("server", "DNS:localhost"), free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(of_server.cert), "--tls-key-file", str(of_server.key))
    trust = ("--tls-ca-cert-file", str(ours.pair.cert), "--tls-auth-clients", request.param)
    with redis_server(folder, *tls, *trust) as server:
        yield Site(server, port, ours.pair, ours.issue("client"), theirs.issue("intruder"))


def opened(url: str, timeout: float = 3.0) -> RedisBackend:
    """Return a backend that answers within seconds."""
    return RedisBackend.open(parse(url), StoreSettings("t", timeout))


def refusal(url: str) -> str:
    """Return what the error of a first request says; it is ours, and it comes in time."""
    backend = opened(url)
    with pytest.raises(BackendUnavailable) as refused:
        backend.ping()
    return str(refused.value)


def test_leases_and_waiting_work_over_tls(site: Site) -> None:
    """A turn that is given reaches the waiter although OpenSSL sits between socket and reader."""
    backend = opened(site.url(with_certificate(site.client)))
    grant = granted(backend, "job")
    watch = backend.watch()
    for round_trip in range(20):
        waiter = mint()
        assert isinstance(backend.acquire("job", waiter, 30, queue=watch), Held)
        assert backend.renew([grant]) == [Renewed(30)], round_trip
        assert backend.release(grant)
        topics: set[Topic] = set()
        eventually(lambda topics=topics: topics.update(watch.drain()) or topics, what="the turn")
        assert topics == {Topic("lease", "job", waiter.nonce)}
        grant = granted(backend, "job", waiter)
    assert backend.release(grant)
    watch.close()
    backend.close()


def test_idle_encrypted_connections_are_used_again(site: Site) -> None:
    """What TLS says unasked (session tickets) is not taken for a reply that is left over."""
    backend = opened(site.url(with_certificate(site.client)))
    ids = {backend._server.ask("test", b"CLIENT", b"ID") for _ in range(10)}
    assert len(ids) == 1
    backend.close()


def test_an_unknown_authority_is_refused(site: Site) -> None:
    """The certificate is verified without being told so."""
    said = refusal(f"rediss://localhost:{site.port}/0?{with_certificate(site.client)}")
    assert "not trusted" in said
    assert "ssl_ca_certs" in said


def test_another_hosts_certificate_is_refused_unless_names_are_not_compared(site: Site) -> None:
    """By default the name in the URL has to be in the certificate."""
    said = refusal(site.url(with_certificate(site.client), host="127.0.0.1"))
    assert "the certificate is another host's" in said
    opened(site.url(with_certificate(site.client), "ssl_check_hostname=false", host="127.0.0.1")).ping()
    with pytest.raises(ConfigError, match="ssl_check_hostname='no' is not one of true, false"):
        opened(site.url("ssl_check_hostname=no"))
    unverified = f"rediss://localhost:{site.port}/0?ssl_check_hostname=false&{with_certificate(site.client)}"
    assert "not trusted" in refusal(unverified)


def test_a_missing_or_foreign_client_certificate_is_named(site: Site) -> None:
    """Many times: whether the alert or the end of the connection is seen first is chance."""
    with site.server.client() as client:
        wanted = client.config_get("tls-auth-clients")["tls-auth-clients"] == "yes"
    if not wanted:
        opened(site.url()).ping()
        return
    for _ in range(10):
        assert "client certificate: add ssl_certfile and ssl_keyfile" in refusal(site.url())
    said = refusal(site.url(with_certificate(site.stranger)))
    assert "does not trust our certificate" in said or "hung up: see its log" in said


def test_a_plain_url_to_a_tls_port_and_the_reverse_are_named(site: Site) -> None:
    """Each names the other scheme."""
    assert "use rediss://" in refusal(f"redis://localhost:{site.port}/0")
    assert "use redis://" in refusal(site.url(with_certificate(site.client), port=site.server.port))


def test_a_locked_key_needs_its_password_which_is_never_shown(site: Site) -> None:
    """Refused when the URL is read, without a question on the terminal."""
    pair = locked(site.client, "canary-1")
    opened(site.url(with_certificate(pair), "ssl_password=canary-1")).ping()
    for options in (("ssl_password=canary-2",), ()):
        with pytest.raises(ConfigError, match="ssl_password") as refused:
            opened(site.url(with_certificate(pair), *options))
        assert "canary" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ssl_ca_certs=/no/such/file", "ssl_ca_certs='/no/such/file' is not a file"),
        ("ssl_certfile={cert}", "belong together"),
        ("ssl_keyfile={key}", "belong together"),
        ("ssl_certfile={key}&ssl_keyfile={cert}", "cannot be used"),
        ("ssl_certfile={cert}&ssl_keyfile={other}", "cannot be used"),
        ("ssl_ca_certs={key}", "ssl_ca_certs cannot be used"),
        ("ssl_cert_reqs=none", "unknown option 'ssl_cert_reqs'; known options: .*ssl_ca_certs"),
    ],
)
def test_files_that_cannot_work_are_refused_when_the_url_is_read(site: Site, options: str, words: str) -> None:
    """There is no option that switches verification off."""
    filled = options.format(cert=site.client.cert, key=site.client.key, other=site.stranger.key)
    with pytest.raises(ConfigError, match=words):
        opened(f"rediss://localhost:{site.port}/0?{filled}")


def test_a_user_of_the_server_is_named_in_the_url(site: Site) -> None:
    """An ACL user, over TLS; user and password may hold any character."""
    with site.server.client() as client:
        client.execute_command("ACL", "SETUSER", "a@b", "reset", "on", ">p/#%:w", "+@all", "~*", "&*")
    query = f"ssl_ca_certs={site.authority.cert}&{with_certificate(site.client)}"
    backend = opened(f"rediss://a%40b:p%2F%23%25%3Aw@localhost:{site.port}/0?{query}")
    assert backend._server.ask("test", b"ACL", b"WHOAMI") == b"a@b"
    backend.close()
