"""Credentials from a provider, on a real server whose passwords rotate."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.errors import BackendUnavailable, ConfigError, CredentialsUnavailable
from coordinate.testing.lease_port import granted
from coordinate.url import parse
from tests.servers import RedisServer, redis_server
from tests.stacks.fake_sentinel import fake_sentinel

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a running server."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def rotate(server: RedisServer, password: str) -> None:
    """Let the user in with this password only, and end its connections."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{password}", "+@all", "~*", "&*")
        client.execute_command("CLIENT", "KILL", "USER", "app")


def opened(server: RedisServer, provider: str, user: str = "app@") -> RedisBackend:
    """Return a backend with a provider."""
    url = f"redis://{user}127.0.0.1:{server.port}/0?credential_provider={provider}"
    return RedisBackend.open(parse(url), StoreSettings("t", 1.0))


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the example reads, with the example importable."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("REDIS_TOKEN_FILE", str(tmp_path / "token"))
    return tmp_path / "token"


def test_the_example_follows_a_token_that_rotates(server: RedisServer, token_file: Path) -> None:
    """Every new connection reads the token of its moment; the held lease is still ours after each rotation."""
    rotate(server, "canary-0")
    token_file.write_text("canary-0\n")
    backend = opened(server, "rotating_credentials:from_file")
    grant = granted(backend, "job")
    for number in range(1, 4):
        rotate(server, f"canary-{number}")
        with pytest.raises(BackendUnavailable, match="credential") as refused:
            backend.ping()
        assert "canary" not in "".join(traceback.format_exception(refused.value))
        token_file.write_text(f"canary-{number}\n")
        assert backend._server.ask("test", b"ACL", b"WHOAMI") == b"app"
        assert granted(backend, f"job-{number}").token > grant.token
        assert backend.renew([grant])[0].ttl == 30
    backend.close()


def test_a_waiter_is_served_through_a_rotation(server: RedisServer, token_file: Path) -> None:
    """The waiting connection, too, asks for credentials when it is opened again."""
    rotate(server, "canary-0")
    token_file.write_text("canary-0")
    url = f"redis://app@127.0.0.1:{server.port}/0?credential_provider=rotating_credentials:from_file"
    with connect(url, ttl=3, namespace="w") as holder, connect(url, ttl=3, namespace="w") as waiter:
        lease = holder.lease("x").acquire()
        token_file.write_text("canary-1")
        rotate(server, "canary-1")
        lease.release()
        assert waiter.lease("x").acquire(timeout=10).held


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module ``canaries`` with providers that fail."""
    made = ModuleType("canaries")

    def explode(*_: object) -> None:
        message = "canary-in-an-error"
        raise KeyError(message)

    made.__dict__.update(
        raises=lambda _: explode,
        fails_to_make=explode,
        none=lambda _: None,
        one=lambda _: lambda: "canary-text",
        numbers=lambda _: lambda: ("app", 7),
        triple=lambda _: lambda: ("a", "canary", "c"),
        wrong=lambda _: lambda: ("app", "canary-wrong"),
        default=lambda _: lambda: (None, "canary-default"),
        text="no function",
    )
    monkeypatch.setitem(sys.modules, "canaries", made)
    return made


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("provider", ["raises", "one", "numbers", "triple"])
def test_a_provider_that_fails_is_a_typed_error_without_its_secrets(server: RedisServer, provider: str) -> None:
    """Type and place, never its text; not even in the chain of causes or in the attributes of an error tracker."""
    backend = opened(server, f"canaries:{provider}")
    with pytest.raises(CredentialsUnavailable, match=f"canaries:{provider} failed: .*nothing was asked") as refused:
        backend.ping()
    step: BaseException | None = refused.value
    while step is not None:
        assert "canary" not in repr(step.args)
        assert not isinstance(step, KeyError)
        step = step.__cause__ or step.__context__
    if provider == "raises":
        assert "KeyError at " in str(refused.value)
        assert "test_redis_credentials.py:" in str(refused.value)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("provider", ["wrong", "default"])
def test_refused_credentials_name_the_provider_and_no_password(server: RedisServer, provider: str) -> None:
    """It is not the URL that the operator has to look at."""
    rotate(server, "right")
    with pytest.raises(BackendUnavailable, match="credential provider") as refused:
        opened(server, f"canaries:{provider}").ping()
    assert "canary-" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("", "looks like package.module:factory"),
        ("canaries", "looks like package.module:factory"),
        ("canaries:", "looks like package.module:factory"),
        (":raises", "cannot be used"),
        ("canaries:missing", "names no function"),
        ("canaries:text", "names no function"),
        ("no.such.module:x", "No module named 'no'"),
        ("..up:x", "cannot be used"),
        ("canaries:fails_to_make", "KeyError at"),
        ("canaries:none", "did not return a function"),
    ],
)
def test_a_provider_that_cannot_be_made_is_refused_when_the_url_is_read(
    server: RedisServer, provider: str, words: str
) -> None:
    """Before anything is tried."""
    with pytest.raises(ConfigError, match=words) as refused:
        opened(server, provider)
    assert "canary" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.usefixtures("module")
def test_a_password_beside_a_provider_is_refused(server: RedisServer) -> None:
    """One of the two would be ignored."""
    with pytest.raises(ConfigError, match="exclude each other") as refused:
        opened(server, "canaries:wrong", user="app:canary@")
    assert "canary@" not in str(refused.value)


def test_a_server_without_auth_repeats_no_password(tmp_path: Path) -> None:
    """It answers an unknown command with its arguments: they are taken out of the error and of its causes."""
    with redis_server(tmp_path, "--rename-command", "AUTH", "NO-AUTH") as server:
        for secret in (":canary-1@", "user:canary-1@"):
            url = f"redis://{secret}127.0.0.1:{server.port}/0"
            with pytest.raises(BackendUnavailable) as refused:
                RedisBackend.open(parse(url), StoreSettings("t", 1.0)).ping()
            assert "canary" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.usefixtures("module")
def test_behind_sentinel_and_in_a_cluster_a_failing_provider_is_the_same_error(server: RedisServer) -> None:
    """It is not mixed up with servers that cannot be reached."""
    url = f"redis+cluster://127.0.0.1:{server.port}/?credential_provider=canaries:raises"
    with pytest.raises(CredentialsUnavailable, match="KeyError at"):
        RedisBackend.open(parse(url), StoreSettings("t", 1.0)).ping()
    with fake_sentinel(server.port) as sentinel:
        url = f"redis+sentinel://{sentinel.address}/main/0?credential_provider=canaries:raises"
        with pytest.raises(CredentialsUnavailable, match="KeyError at"):
            RedisBackend.open(parse(url), StoreSettings("t", 1.0)).ping()
