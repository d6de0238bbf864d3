"""The way to Redis from its bad side: servers that die or stall, replies that get lost, rights that are missing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from redis.connection import Connection

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import (
    Capability,
    Claim,
    Gone,
    Grant,
    Held,
    LossReason,
    MarkerRecord,
    MarkerState,
    Renewed,
    Unknown,
)
from tests.servers import free_port, opened, proxy, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from coordinate.backends.redis import RedisBackend
    from tests.servers import RedisServer

TIMEOUT = 0.5
"""Seconds that an answer may take where there will be none."""
SLACK = 10.0
"""Seconds that a busy machine may add."""
LEASE = "t:{l:job}:lease"
DONE = MarkerRecord("migrate", "r1", MarkerState.DONE, 7)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a server that the test may ruin."""
    with redis_server(tmp_path) as server:
        yield server


OPERATIONS: dict[str, Callable[[RedisBackend], object]] = {
    "acquire": lambda backend: backend.acquire("job", mint(), 30),
    "withdraw": lambda backend: backend.withdraw("job", mint()),
    "release": lambda backend: backend.release(Grant("job", 1, "n", 30)),
    "holder": lambda backend: backend.holder("job"),
    "leases": lambda backend: backend.leases(),
    "break": lambda backend: backend.break_lease("job"),
    "claim": lambda backend: backend.claim("site", Claim(7, mint())),
    "put": lambda backend: backend.put_marker("site", DONE, 7),
    "markers": lambda backend: backend.markers("site"),
    "delete": lambda backend: backend.delete_marker("site", "migrate", "r1"),
    "scopes": lambda backend: backend.scopes(),
    "watch": lambda backend: backend.watch(),
    "ping": lambda backend: backend.ping(),
    "describe": lambda backend: backend.describe(),
}


def insist_on_our_errors(backend: RedisBackend) -> None:
    """Every operation raises our error in time, renewal answers Unknown, and the promises shrink."""
    for name, operation in OPERATIONS.items():
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"failed: .*; "):
            operation(backend)
        assert time.monotonic() - started < TIMEOUT + SLACK, name
    (answer,) = backend.renew([Grant("job", 1, "n", 30)])
    assert isinstance(answer, Unknown)
    assert answer.why
    assert Capability.DURABLE_MARKERS not in backend.capabilities


def answers(backend: RedisBackend) -> bool:
    """Return whether the server answers in time."""
    try:
        backend.ping()
    except BackendUnavailable:
        return False
    return True


def test_a_server_that_is_not_there_raises_only_our_error() -> None:
    """Nobody listens: each operation says so, opening does not."""
    insist_on_our_errors(opened(f"redis://127.0.0.1:{free_port()}/0"))


def test_a_killed_server_raises_only_our_error_and_a_new_one_is_found(own: RedisServer) -> None:
    """Connections that were good break; after the restart the same backend goes on."""
    backend = opened(own.url)
    grant = granted(backend, "job")
    own.kill()
    insist_on_our_errors(backend)
    own.start()
    assert backend.renew([grant]) == [Gone(LossReason.EXPIRED)]
    assert granted(backend, "job").token > grant.token


def test_a_paused_server_raises_only_our_error_in_time(own: RedisServer) -> None:
    """Nothing answers on open connections; afterwards everything is as before."""
    grant = granted(opened(own.url), "job")
    backend = opened(own.url, TIMEOUT)
    eventually(lambda: answers(backend), what="the connection")
    own.pause()
    insist_on_our_errors(backend)
    own.resume()
    eventually(lambda: answers(backend), what="the connection")
    assert opened(own.url).renew([grant]) in ([Renewed(30)], [Gone(LossReason.BROKEN)])


def test_a_server_restarted_between_two_requests_costs_one_error_at_most(own: RedisServer) -> None:
    """All idle connections are dropped with the first broken one."""
    backend = opened(own.url)
    node = backend._server.node(b"")
    for line in [node.take() for _ in range(4)]:
        node.put(line)
    own.restart()
    try:
        backend.ping()
    except BackendUnavailable:
        backend.ping()
    backend.close()


def test_an_unreachable_unix_socket_raises_our_error(tmp_path: Path) -> None:
    """There is no such file."""
    with pytest.raises(BackendUnavailable, match="no-such"):
        opened(f"unix://{tmp_path}/no-such.sock").ping()


def test_a_repeated_acquire_after_a_lost_reply_gets_the_same_token(shared: RedisServer, admin: redis.Redis) -> None:
    """The grant happened although its reply was lost; the owner finds it again."""
    owner = mint()
    with proxy(shared.port) as way:
        # The server must know the script: otherwise its "no such script" would be the reply that is lost.
        patient = opened(shared.url)
        assert patient.release(granted(patient, "job"))
        backend = opened(f"redis://127.0.0.1:{way.port}/0", 2.0)
        eventually(lambda: answers(backend), what="the connection")
        way.swallow_after = owner.nonce.encode()
        with pytest.raises(BackendUnavailable, match="may have happened"):
            backend.acquire("job", owner, 30)
        eventually(lambda: admin.exists(LEASE) == 1, what="the grant")
        token = admin.hget(LEASE, "token")
        assert granted(patient, "job", owner).token == int(token)
        for each in (backend, patient):
            each.close()


def test_a_late_reply_never_answers_the_next_request(own: RedisServer) -> None:
    """The connection of a request that timed out is not used again."""
    backend = opened(own.url, TIMEOUT)
    eventually(lambda: answers(backend), what="the connection")
    own.pause()
    with pytest.raises(BackendUnavailable):
        backend.break_lease("job")
    own.resume()
    eventually(lambda: answers(backend), what="the connection")
    assert backend.holder("nobody") is None
    assert backend.leases() == []


def test_an_interrupt_between_request_and_reply_leaves_no_reply_behind(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request does not get the interrupted one's reply."""
    backend.ping()
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "read_response", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.break_lease("job")
    assert backend.leases() == []
    assert backend.holder("job") is None


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_user_with_the_advised_rights_can_do_everything(shared: RedisServer, admin: redis.Redis) -> None:
    """The rights that errors recommend are enough; without any, the error recommends them."""
    admin.execute_command("ACL", "SETUSER", "app", "reset", "on", ">canary-pw", "+ping")
    backend = opened(f"redis://app:canary-pw@127.0.0.1:{shared.port}/0")
    with pytest.raises(BackendUnavailable, match="ACL SETUSER"):
        backend.holder("job")
    rights = "~t:* &t:* +@all -@admin -@dangerous +info"
    admin.execute_command("ACL", "SETUSER", "app", *rights.split())
    grant = granted(backend, "job")
    backend.claim("site", Claim(7, mint()))
    backend.put_marker("site", DONE, 7)
    backend.watch().close()
    assert backend.scopes() == ["site"]
    assert backend.describe()["version"]
    assert Capability.DURABLE_MARKERS not in backend.capabilities
    assert backend.release(grant)
    backend.close()


def test_a_password_is_needed_and_never_shown(tmp_path: Path) -> None:
    """The right one works by TCP and socket; errors and descriptions name no password."""
    with redis_server(tmp_path, password="canary-right") as server:
        backend = opened(server.url)
        assert "canary" not in f"{backend.describe()} {backend.store_id}"
        opened(f"unix://:canary-right@{server.address.socket}").ping()
        for url in (server.url.replace("right", "wrong"), f"redis://127.0.0.1:{server.port}/0"):
            with pytest.raises(BackendUnavailable, match="user name and password") as refused:
                opened(url).ping()
            assert "canary" not in str(refused.value)
        backend.close()


def test_databases_and_namespaces_are_apart(shared: RedisServer, backend: RedisBackend) -> None:
    """Two databases of one server are two stores, and say so."""
    other = opened(f"redis://127.0.0.1:{shared.port}/1")
    by_socket = opened(f"unix://{shared.address.socket}?db=1")
    granted(backend, "job")
    grant = granted(other, "job")
    assert isinstance(by_socket.acquire("job", mint(), 30), Held)
    assert backend.store_id != other.store_id
    assert other.release(grant)


@pytest.mark.parametrize(
    "url",
    [
        "redis://a,b/0",
        "redis://a/zero",
        "redis://a/0?retries=3",
        "redis://a/0?db=1",
        "redis://a/0?timeout=nan",
        "redis://a/0?client_name=two%20words",
        "unix://run/redis.sock",
        "unix:///",
        "unix:///run/redis.sock?db=-1",
    ],
)
def test_urls_that_cannot_work_are_refused_at_once(url: str) -> None:
    """Before anything is tried."""
    with pytest.raises(ConfigError):
        opened(url)


def test_a_forked_child_uses_connections_of_its_own(backend: RedisBackend) -> None:
    """It writes nothing to its parent's socket and cannot drain its parent's watch."""

    def connection() -> object:
        return backend._server.ask("test", b"CLIENT", b"ID")

    watch = backend.watch()
    mine = connection()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if connection() != mine:
                watch.drain()
        except BackendUnavailable as error:
            code = 0 if "forked" in str(error) else 2
            watch.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert connection() == mine
    assert watch.drain() == frozenset()
    watch.close()
