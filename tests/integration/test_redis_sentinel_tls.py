"""A locked stack: everything encrypted, a user with the smallest rights, Sentinels with a password of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.backends.redis.failures import RIGHTS
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from tests.certificates import Authority
from tests.servers import opened
from tests.stacks.replicated import FREE
from tests.stacks.sentinel import Look, sentinel_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stacks.sentinel import SentinelStack

TTL = 20.0
USER = "canary-app"
SENTINEL = "canary-sentinel"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signed all servers."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stack(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelStack]:
    """A stack in which clients, replicas and Sentinels talk TLS only; plain ports are the tests' own back door."""
    pair = authority.issue("server", "IP:127.0.0.1", "DNS:localhost")
    files = {"tls-cert-file": pair.cert, "tls-key-file": pair.key, "tls-ca-cert-file": authority.pair.cert}
    common = {**files, "tls-replication": "yes", "tls-auth-clients": "no"}
    rights = RIGHTS.replace("<namespace>", "coordinate").split()
    look = Look(
        server=(
            *("--tls-port", FREE),
            *(word for name, value in common.items() for word in (f"--{name}", str(value))),
            *("--user", "app", "on", f">{USER}", *rights),
        ),
        sentinel=(*(f"{name} {value}" for name, value in common.items()), f"requirepass {SENTINEL}", _peers()),
        password=SENTINEL,
        tls={"ssl": True, "ssl_ca_certs": str(authority.pair.cert)},
    )
    with sentinel_stack(tmp_path_factory.mktemp("stack"), look) as stack:
        yield stack


def _peers() -> str:
    return f"sentinel sentinel-pass {SENTINEL}"


def url(stack: SentinelStack, authority: Path, user: str = USER, sentinel: str = SENTINEL) -> str:
    """Return the URL with these passwords."""
    options = f"ssl_ca_certs={authority}&sentinel_password={sentinel}"
    return f"rediss+sentinel://app:{user}@{','.join(stack.addresses)}/main?{options}"


def test_a_locked_stack_fails_over_like_any_other(stack: SentinelStack, authority: Authority) -> None:
    """The lease goes on with the successor; no text shows a password."""
    with connect(url(stack, authority.pair.cert), ttl=TTL) as coordinator:
        lease = coordinator.lease("job").acquire(5)
        assert "canary" not in f"{coordinator.backend.describe()} {coordinator.backend.store_id} {lease!r}"
        before = lease.deadline
        stack.wait_for_new_primary(stack.kill_primary())
        eventually(lambda: lease.deadline > before + TTL / 2, within=TTL, what="renewals by the successor")
        lease.check()
        assert lease.release() is True
    for server in stack.servers:
        if not server.running:
            server.start()
    stack.follow()
    stack.settle()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"user": "canary-x"}, "invalid username-password"), ({"sentinel": "canary-y"}, "no usable primary")],
)
def test_wrong_passwords_are_told_apart_and_not_shown(
    stack: SentinelStack, authority: Authority, wrong: dict[str, str], said: str
) -> None:
    """Which of the two it was is in the message."""
    with pytest.raises(BackendUnavailable, match=said) as refused:
        opened(url(stack, authority.pair.cert, **wrong)).ping()
    assert "canary" not in str(refused.value)


def test_an_unknown_authority_is_refused_by_sentinels_already(stack: SentinelStack, tmp_path: Path) -> None:
    """Nothing is sent to a Sentinel that cannot prove who it is."""
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(BackendUnavailable, match="certificate verify failed") as refused:
        opened(url(stack, stranger.pair.cert)).ping()
    assert "canary" not in str(refused.value)
