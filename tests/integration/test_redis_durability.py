"""Grants, claims and records that have to be on replicas, with replicas that stand still; and losses, never silent."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend, facts
from coordinate.backends.redis.failures import NotReplicated
from coordinate.errors import BackendUnavailable, LeaseLost
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import (
    Capability,
    Claim,
    Gone,
    Held,
    Loss,
    LossReason,
    MarkerRecord,
    MarkerState,
    Renewed,
    Unknown,
)
from coordinate.url import parse
from tests.servers import RedisServer, redis_server
from tests.stacks.replicated import Replicated, replicated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

LEASE = "t:{l:job}:lease"
TIMEOUT = 1.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    """Return a primary with two replicas, all with a file."""
    with replicated(tmp_path_factory.mktemp("group"), *DURABLE) as group:
        yield group


@pytest.fixture
def admin(group: Replicated) -> Iterator[redis.Redis]:
    """Return the administrator of the emptied primary, whose replicas are up to date."""
    with group.primary.client() as client:
        client.flushall()
        group.wait_until_replicated()
        yield client


def opened(server: RedisServer, options: str = "") -> RedisBackend:
    """Return a backend whose answers come soon."""
    return RedisBackend.open(parse(f"{server.url}{options}"), StoreSettings("t", TIMEOUT))


@contextlib.contextmanager
def paused(*servers: RedisServer) -> Iterator[None]:
    """Let servers stand still: their connections stay open."""
    for server in servers:
        server.pause()
    try:
        yield
    finally:
        for server in servers:
            server.resume()


def test_with_one_a_single_standing_replica_does_no_harm(group: Replicated, admin: redis.Redis) -> None:
    """The other one has the grant."""
    backend = opened(group.primary, "?durability=one")
    # The record of the server's life has to be on all replicas before the first lease, whatever the durability.
    granted(backend, "warm-up")
    with paused(group.replicas[0]):
        grant = granted(backend, "job")
        assert backend.renew([grant]) == [Renewed(30)]
        with group.replicas[1].client() as replica:
            assert int(replica.hget(LEASE, "token")) == grant.token
    assert admin.exists(LEASE)
    assert backend.release(grant)
    backend.close()


@pytest.mark.parametrize(("durability", "standing"), [("one", 2), ("all", 1)])
def test_a_grant_that_is_not_on_replicas_is_an_error_and_kept_for_who_asks_again(
    group: Replicated, admin: redis.Redis, durability: str, standing: int
) -> None:
    """In time. Nothing takes it back, for that might arrive late and end what the same owner has got since."""
    backend, owner = opened(group.primary, f"?durability={durability}"), mint()
    granted(backend, "warm-up")
    with paused(*group.replicas[:standing]):
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"replicas confirmed the write.*asking again is safe") as refused:
            backend.acquire("job", owner, 30)
        assert time.monotonic() - started < 2 * TIMEOUT
        assert "job" in str(refused.value)
        token = int(admin.hget(LEASE, "token"))
        assert isinstance(backend.acquire("job", mint(), 30), Held)
    group.wait_until_replicated()
    grant = granted(backend, "job", owner)
    assert grant.token == token
    assert backend.release(grant)
    backend.close()


def test_a_wait_that_ends_with_such_a_grant_gives_it_back(group: Replicated, admin: redis.Redis) -> None:
    """Then nobody asks again: the next one need not wait until it expires."""
    with connect(f"{group.primary.url}?durability=all", ttl=30, namespace="t") as coordinator:
        coordinator.lease("warm-up").acquire()
        with paused(group.replicas[0]), pytest.raises(BackendUnavailable, match="replicas confirmed"):
            coordinator.lease("job").acquire(timeout=0.1)
        assert not admin.exists(LEASE)


@pytest.mark.parametrize(("durability", "standing"), [("one", 2), ("all", 1)])
def test_a_renewal_that_is_not_on_replicas_is_unknown(
    group: Replicated, admin: redis.Redis, durability: str, standing: int
) -> None:
    """Neither renewed nor lost; the lease is still there, and with the replicas all is well again."""
    backend = opened(group.primary, f"?durability={durability}")
    grants = [granted(backend, f"job-{number}") for number in range(3)]
    with paused(*group.replicas[:standing]):
        answers = backend.renew(grants)
        assert [type(answer) for answer in answers] == [Unknown] * 3
        assert all(isinstance(answer, Unknown) and "replicas confirmed" in answer.why for answer in answers)
        assert admin.exists("t:{l:job-0}:lease")
    group.wait_until_replicated()
    assert backend.renew(grants) == [Renewed(30)] * 3
    assert all(backend.release(grant) for grant in grants)
    backend.close()


def test_a_waiter_goes_on_when_a_grant_was_not_confirmed(group: Replicated, admin: redis.Redis) -> None:
    """The one who waits in line is not forgotten by an attempt that came to nothing."""
    admin.ping()
    url = f"{group.primary.url}?durability=all"
    with connect(url, ttl=6, namespace="t") as first, connect(url, ttl=6, namespace="t") as second:
        lease, outcome = first.lease("job").acquire(), threading.Event()

        def wait() -> None:
            second.lease("job").acquire(timeout=40)
            outcome.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        eventually(lambda: admin.zcard("t:{l:job}:queue") == 1, within=10, what="the waiter")
        with paused(group.replicas[0]):
            lease.release()
            assert not outcome.wait(2.5)
        waiter.join(30)
        assert outcome.is_set()


def test_with_none_nobody_waits_for_replicas(group: Replicated, admin: redis.Redis) -> None:
    """That is the default."""
    admin.ping()
    backend = opened(group.primary)
    granted(backend, "warm-up")
    with paused(*group.replicas):
        grant = granted(backend, "job")
        assert backend.renew([grant]) == [Renewed(30)]
        assert backend.release(grant)
    backend.close()


@pytest.mark.parametrize("durability", ["one", "all"])
def test_without_any_replica_nothing_is_granted(tmp_path: Path, durability: str) -> None:
    """What cannot be promised is refused, not quietly left out."""
    with redis_server(tmp_path) as server:
        backend = opened(server, f"?durability={durability}")
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas confirmed"):
            backend.acquire("job", mint(), 30)
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas confirmed"):
            backend.claim("site", Claim(7, mint()))
        backend.close()


@pytest.fixture
def guest(group: Replicated, admin: redis.Redis) -> Iterator[str]:
    """Return the URL for a user from whom the primary hides its INFO."""
    admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", "-info")
    yield group.primary.url.replace("//", "//guest:pw@")
    admin.execute_command("ACL", "DELUSER", "guest")


def test_all_is_all_also_where_info_is_hidden(group: Replicated, guest: str) -> None:
    """The server's role says how many replicas there are: one of two is not enough, for grants and claims."""
    backend = RedisBackend.open(parse(f"{guest}?durability=all"), StoreSettings("t", TIMEOUT))
    with paused(group.replicas[0]):
        with pytest.raises(BackendUnavailable, match="1 of 2 replicas"):
            backend.acquire("job", mint(), 30)
        with pytest.raises(BackendUnavailable, match="1 of 2 replicas"):
            backend.claim("site", Claim(7, mint()))
    group.wait_until_replicated()
    backend.claim("site", Claim(8, mint()))
    backend.close()


def test_all_is_refused_where_nobody_can_say_how_many_that_is(admin: redis.Redis, guest: str) -> None:
    """An error that names the right that is missing, not a promise that one replica keeps."""
    admin.execute_command("ACL", "SETUSER", "guest", "-role")
    backend = RedisBackend.open(parse(f"{guest}?durability=all"), StoreSettings("t", TIMEOUT))
    for operation in (lambda: backend.acquire("job", mint(), 30), lambda: backend.claim("site", Claim(7, mint()))):
        with pytest.raises(BackendUnavailable, match=r"how many replicas.*\+info or \+role"):
            operation()
    backend.close()


def test_a_busy_connection_counts_the_replicas_anew(group: Replicated, admin: redis.Redis) -> None:
    """One that came since the connection was opened has to have the grant, too."""
    admin.ping()
    backend = opened(group.primary, "?durability=all")
    granted(backend, "warm-up")
    (line,) = backend._server.node(b"")._spare
    line.known, line.greeted_at = line.known._replace(replicas=1), -math.inf
    with paused(group.replicas[0]):
        line.seen_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        with pytest.raises(BackendUnavailable, match="1 of 2 replicas"):
            backend.acquire("job", mint(), 30)
    group.wait_until_replicated()
    backend.close()


def test_a_server_that_is_another_one_after_the_write_confirms_nothing(tmp_path: Path) -> None:
    """What was renewed may have gone with its earlier life; asking again tells."""
    with replicated(tmp_path, "--enable-debug-command", "local", replicas=1) as group:
        backend = opened(group.primary, "?durability=all")
        grant = granted(backend, "job")
        line = backend._server.node(b"").take()
        line.greeted_at = -math.inf
        with group.primary.client() as client:
            client.execute_command("DEBUG", "CHANGE-REPL-ID")
        with pytest.raises(NotReplicated, match="replaced or has restarted"):
            line.count_replicas()
        backend._server.node(b"").put(line)
        group.wait_until_replicated()
        assert backend.renew([grant]) == [Renewed(30)]
        backend.close()


def test_claims_are_not_acknowledged_while_nobody_can_say_what_is_promised(
    group: Replicated, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have promised durable records to somebody: no answer is not a no."""
    admin.ping()
    backend = opened(group.primary)

    def no_answer(_: object) -> list[dict[str, str]]:
        message = "no answer"
        raise BackendUnavailable(message)

    with monkeypatch.context() as patch, paused(group.replicas[0]):
        patch.setattr(facts, "read", no_answer)
        with pytest.raises(BackendUnavailable, match=r"claim .* not safe"):
            backend.claim("site", Claim(7, mint()))
    group.wait_until_replicated()
    backend.close()


def test_claims_and_done_are_on_all_replicas_or_are_errors(group: Replicated, admin: redis.Redis) -> None:
    """On a store that promises durable records; the repetition is accepted, also where the first was written."""
    admin.ping()
    backend, claim = opened(group.primary), Claim(7, mint())
    assert Capability.DURABLE_MARKERS in backend.capabilities
    done = MarkerRecord("migrate", "r1", MarkerState.DONE, 7)
    with paused(group.replicas[1]), pytest.raises(BackendUnavailable, match=r"claim .* not safe.*asking again is"):
        backend.claim("site", claim)
    group.wait_until_replicated()
    backend.claim("site", claim)
    with paused(group.replicas[1]):
        # A record that only says that somebody has begun need not survive.
        backend.put_marker("site", MarkerRecord("migrate", "r1", MarkerState.IN_PROGRESS, 7), 7)
        with pytest.raises(BackendUnavailable, match=r"writing a marker .* not safe"):
            backend.put_marker("site", done, 7)
    group.wait_until_replicated()
    backend.put_marker("site", done, 7)
    for server in group.servers:
        with server.client() as client:
            assert client.hget("t:{m:site}:claim", "token") == b"7"
            assert b'"done"' in b"".join(client.hvals("t:{m:site}:markers"))
    assert backend.markers("site").find("migrate", "r1") == done
    backend.close()


def test_a_store_without_durable_records_does_not_insist(group: Replicated, admin: redis.Redis) -> None:
    """It has not promised anything, and says so: its work goes on."""
    admin.config_set("appendfsync", "everysec")
    try:
        backend = opened(group.primary)
        assert Capability.DURABLE_MARKERS not in backend.capabilities
        with paused(*group.replicas):
            backend.claim("site", Claim(7, mint()))
            backend.put_marker("site", MarkerRecord("migrate", "r1", MarkerState.DONE, 7), 7)
        backend.close()
    finally:
        admin.config_set("appendfsync", "always")


def test_durable_records_and_tokens_survive_a_crash(tmp_path: Path) -> None:
    """A kill -9 straight after the answer, many times."""
    with redis_server(tmp_path, *DURABLE) as server:
        backend = opened(server, "?quarantine=off")
        tokens = []
        for number in range(5):
            owner = mint()
            backend.claim(f"site-{number}", Claim(7, owner))
            backend.put_marker(f"site-{number}", MarkerRecord("migrate", "r1", MarkerState.DONE, 7), 7)
            tokens.append(granted(backend, f"job-{number % 2}").token)
            server.restart()
            with contextlib.suppress(BackendUnavailable):
                backend.ping()
            backend.break_lease(f"job-{number % 2}")
            for earlier in range(number + 1):
                record = backend.markers(f"site-{earlier}").find("migrate", "r1")
                assert record is not None
                assert record.state is MarkerState.DONE
        assert tokens == sorted(set(tokens))
        backend.close()


def flush(server: RedisServer) -> None:
    """Delete everything."""
    with server.client() as client:
        client.flushall()


def delete(server: RedisServer) -> None:
    """Delete the lease."""
    with server.client() as client:
        assert client.delete(LEASE) == 1


def evict(server: RedisServer) -> None:
    """Let the server run out of memory and throw away what expires."""
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        client.config_set("maxmemory", client.info()["used_memory"] + 200_000)
        for number in range(100_000):
            client.set(f"filler-{number}", "x" * 1000, ex=3600)
            if not client.exists(LEASE):
                return
    pytest.fail("the lease was not evicted")


def restart(server: RedisServer) -> None:
    """Come back empty."""
    server.restart()


@pytest.mark.parametrize("lose", [flush, delete, evict, restart])
def test_a_lease_that_the_server_loses_is_reported_within_a_renewal(
    tmp_path: Path, lose: Callable[[RedisServer], None]
) -> None:
    """The holder hears of it once, with the reason, long before its deadline; nothing of it is kept silently."""
    ttl, heard = 6.0, []
    with redis_server(tmp_path) as server, connect(server.url, ttl=ttl, namespace="t") as holder:
        lease = holder.lease("job").acquire()
        lease.on_lost(heard.append)
        lose(server)
        lost_at = time.monotonic()
        eventually(lambda: heard, within=ttl, what="the loss")
        # A sixth of the ttl between two renewals, and one more if the first meets a server that restarts.
        assert time.monotonic() - lost_at < ttl * 2 / 3
        assert not lease.held
        with pytest.raises(LeaseLost):
            lease.check()
        (loss,) = heard
        assert isinstance(loss, Loss)
        assert loss.reason is LossReason.EXPIRED
        with connect(server.url, ttl=ttl, namespace="t") as other:
            again = other.lease("job").acquire(timeout=10)
            assert again.token > 0


@pytest.mark.parametrize("lose", [flush, delete, evict, restart])
def test_somebody_elses_grant_after_a_loss_has_a_greater_token(
    tmp_path: Path, lose: Callable[[RedisServer], None]
) -> None:
    """So what checks tokens refuses the first one, also while that one has not heard of its loss."""
    with redis_server(tmp_path) as server:
        first, second = opened(server), opened(server)
        grant = granted(first, "job")
        lose(server)
        with contextlib.suppress(BackendUnavailable):
            second.ping()
        if lose is evict:
            with server.client() as client:
                client.config_set("maxmemory", 0)
        assert granted(second, "job").token > grant.token
        with contextlib.suppress(BackendUnavailable):
            first.ping()
        (answer,) = first.renew([grant])
        assert answer == Gone(LossReason.TAKEN)
        first.close()
        second.close()
