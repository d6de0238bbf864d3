"""A server that has lost its memory: nobody new gets in while a holder may still believe, and holders carry on.

``DEBUG CHANGE-REPL-ID`` gives a real server the identity that a promotion would; deleting the keys is the loss.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.errors import AcquireTimeout, BackendUnavailable
from coordinate.testing import eventually
from coordinate.types import Capability, Gone, Grant, Granted, Held, LossReason, Quarantined, Renewed
from coordinate.url import parse
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.servers import RedisServer

LAG = 1
"""Seconds for which an isolated primary may go on, as the servers here are configured."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests."""
    args = ("--enable-debug-command", "local", "--min-replicas-max-lag", str(LAG))
    with redis_server(tmp_path_factory.mktemp("redis"), *args) as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    """An administrator of the emptied server."""
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def one(server: RedisServer, admin: redis.Redis) -> Iterator[RedisBackend]:
    """One process."""
    backend = opened(server)
    admin.ping()
    yield backend
    backend.close()


@pytest.fixture
def other(server: RedisServer, admin: redis.Redis) -> Iterator[RedisBackend]:
    """Another process."""
    backend = opened(server)
    admin.ping()
    yield backend
    backend.close()


def opened(server: RedisServer, query: str = "") -> RedisBackend:
    """Return a client."""
    return RedisBackend.open(parse(f"{server.url}{query}"), StoreSettings(namespace="q"))


def granted(backend: RedisBackend, name: str, ttl: float = 30.0) -> Grant:
    """Acquire a lease that must be free."""
    answer = backend.acquire(name, mint(), ttl)
    assert isinstance(answer, Granted)
    return answer.grant


def promote(admin: redis.Redis, *lost: str) -> None:
    """Do what a failover does: another identity, and the newest leases are missing."""
    admin.execute_command("DEBUG", "CHANGE-REPL-ID")
    for name in lost:
        for key in admin.scan_iter(f"q:{{l:{name}}}:*"):
            admin.delete(key)
    # Connections that were busy a moment ago are believed for that long.
    time.sleep(0.3)


def test_a_first_use_waits_for_nothing(one: RedisBackend) -> None:
    """No record of an earlier life: nobody can have lost anything."""
    granted(one, "job")
    assert Capability.FAILOVER in one.capabilities


def test_nobody_new_gets_in_after_a_failover(one: RedisBackend, other: RedisBackend, admin: redis.Redis) -> None:
    """For the longest lease in use, the isolated primary's time, and a second."""
    granted(one, "job", ttl=20.0)
    promote(admin, "job")
    answer = other.acquire("job", mint(), 5.0)
    assert isinstance(answer, Quarantined)
    assert 20 + LAG < answer.retry_after <= 20 + LAG + 1
    assert isinstance(other.acquire("another", mint(), 5.0), Quarantined)


def test_a_lease_that_survived_is_held_and_renewed(one: RedisBackend, other: RedisBackend, admin: redis.Redis) -> None:
    """What was replicated in time is not affected."""
    grant = granted(one, "job")
    promote(admin)
    assert isinstance(other.acquire("job", mint(), 30.0), Held)
    assert one.renew([grant]) == [Renewed(30.0)]
    assert one.release(grant)


def test_the_holder_of_a_lost_lease_restores_it(one: RedisBackend, other: RedisBackend, admin: redis.Redis) -> None:
    """With the same token; from then on it is held for everybody, and released as ever."""
    grant = granted(one, "job")
    promote(admin, "job")
    assert one.renew([grant]) == [Renewed(30.0)]
    answer = other.acquire("job", mint(), 30.0)
    assert isinstance(answer, Held)
    assert answer.record is not None
    assert answer.record.token == grant.token
    assert one.release(grant)


def test_many_lost_leases_are_restored_in_order(one: RedisBackend, admin: redis.Redis) -> None:
    """Lost, surviving and ended ones are told apart."""
    grants = [granted(one, f"many/{number}") for number in range(6)]
    one.release(grants[3])
    promote(admin, "many/1", "many/4", "many/3")
    answers = one.renew(grants)
    assert answers[3] == Gone(LossReason.EXPIRED)
    assert answers[:3] + answers[4:] == [Renewed(30.0)] * 5


def test_a_lease_missing_in_the_same_life_is_lost(one: RedisBackend, admin: redis.Redis) -> None:
    """Somebody deleted it: silence would be a lie."""
    grant = granted(one, "job")
    admin.delete("q:{l:job}:lease")
    assert one.renew([grant]) == [Gone(LossReason.EXPIRED)]


def test_a_holder_whose_time_is_over_restores_nothing(one: RedisBackend, admin: redis.Redis) -> None:
    """Its work has been stopped."""
    grant = granted(one, "job", ttl=0.2)
    promote(admin, "job")
    assert one.renew([grant]) == [Gone(LossReason.EXPIRED)]
    assert admin.exists("q:{l:job}:lease") == 0


def test_a_holder_who_was_succeeded_restores_nothing(one: RedisBackend, admin: redis.Redis) -> None:
    """A higher token is stored: somebody was granted it after the loss."""
    grant = granted(one, "job")
    promote(admin, "job")
    admin.hset("q:{l:job}:token", "last", grant.token + 5)
    assert one.renew([grant]) == [Gone(LossReason.TAKEN)]


def test_a_broken_lease_is_not_restored(one: RedisBackend, other: RedisBackend, admin: redis.Redis) -> None:
    """An operator ended it on the new primary."""
    grant = granted(one, "job")
    promote(admin, "job")
    other.break_lease("job")
    assert one.renew([grant]) == [Gone(LossReason.BROKEN)]


def test_an_empty_restart_forgets_leases_and_says_so(one: RedisBackend, admin: redis.Redis) -> None:
    """No record: ``auto`` takes it for a first use, so a holder may have been succeeded unseen."""
    grant = granted(one, "job")
    admin.flushall()
    promote(admin)
    assert one.renew([grant]) == [Gone(LossReason.EXPIRED)]


def test_a_reader_that_comes_first_does_not_shorten_what_strict_waits(server: RedisServer, admin: redis.Redis) -> None:
    """It has no ttl of its own; the first who wants a lease notes the end, by its own length."""
    with contextlib.closing(opened(server, "?quarantine=strict")) as reader:
        assert reader.holder("job") is None
    with contextlib.closing(opened(server, "?quarantine=strict")) as backend:
        answer = backend.acquire("job", mint(), 120)
    assert isinstance(answer, Quarantined)
    assert answer.retry_after > 120 + LAG - admin.info("server")["uptime_in_seconds"] - 2


def test_strict_waits_on_a_server_that_nobody_knows(server: RedisServer, admin: redis.Redis) -> None:
    """Until it is older than any lease can be."""
    admin.ping()
    backend = opened(server, "?quarantine=strict")
    answer = backend.acquire("job", mint(), 3000.0)
    assert isinstance(answer, Quarantined)
    assert 2000 < answer.retry_after < 3002 + LAG
    backend.close()


def test_off_waits_for_nothing_and_restores_nothing(server: RedisServer, admin: redis.Redis) -> None:
    """The operator's choice; it is not declared as safe."""
    backend = opened(server, "?quarantine=off")
    grant = granted(backend, "job")
    promote(admin, "job")
    assert backend.renew([grant]) == [Gone(LossReason.EXPIRED)]
    granted(backend, "job")
    assert Capability.FAILOVER not in backend.capabilities
    backend.close()


def test_the_longest_lease_of_anybody_counts(one: RedisBackend, other: RedisBackend, admin: redis.Redis) -> None:
    """Also when it came later than the record."""
    granted(one, "short", ttl=5.0)
    granted(other, "long", ttl=100.0)
    promote(admin, "short", "long")
    answer = one.acquire("short", mint(), 5.0)
    assert isinstance(answer, Quarantined)
    assert answer.retry_after > 100


def test_a_second_failover_never_shortens_the_wait(one: RedisBackend, other: RedisBackend, admin: redis.Redis) -> None:
    """Holders of the first life may still believe."""
    granted(one, "long", ttl=100.0)
    promote(admin, "long")
    assert isinstance(other.acquire("job", mint(), 1.0), Quarantined)
    promote(admin)
    answer = other.acquire("job", mint(), 1.0)
    assert isinstance(answer, Quarantined)
    assert answer.retry_after > 98


def test_a_server_that_hides_its_info_promises_less(
    server: RedisServer, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """As managed ones do: leases work, the capability is absent, the log says so, once."""
    admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~q:*", "&q:*", "+@all", "-info")
    backend = opened_as(server, "guest", "pw")
    with caplog.at_level(logging.WARNING, "coordinate"):
        grant = granted(backend, "job")
        time.sleep(0.3)
        assert backend.renew([grant]) == [Renewed(30.0)]
    assert len([record for record in caplog.records if "INFO" in record.getMessage()]) == 1
    assert Capability.FAILOVER not in backend.capabilities
    backend.close()
    admin.execute_command("ACL", "DELUSER", "guest")


def opened_as(server: RedisServer, user: str, password: str) -> RedisBackend:
    """Return a client of an ACL user."""
    url = f"redis://{user}:{password}@127.0.0.1:{server.port}/0"
    return RedisBackend.open(parse(url), StoreSettings(namespace="q"))


def test_a_waiter_gets_the_lease_when_the_quarantine_ends(server: RedisServer, admin: redis.Redis) -> None:
    """Not before; and a wait that ends earlier says why it got nothing."""
    with connect(server.url, namespace="q", ttl=3.0) as old, connect(server.url, namespace="q", ttl=3.0) as new:
        old.lease("job").acquire()
        old.close()
        promote(admin, "job")
        started = time.monotonic()
        with pytest.raises(AcquireTimeout, match="quarantine"):
            new.lease("job").acquire(timeout=0.2)
        assert not new.lease("job").try_acquire()
        new.lease("job").acquire(timeout=60)
        assert time.monotonic() - started > 3.0 + LAG - 0.3


def test_a_held_lease_lives_through_a_failover(server: RedisServer, admin: redis.Redis) -> None:
    """The keeper restores it unasked; its token stays."""
    with connect(server.url, namespace="q", ttl=9.0) as coordinator:
        lease = coordinator.lease("job")
        lease.acquire()
        token = lease.token
        promote(admin, "job")
        eventually(lambda: admin.exists("q:{l:job}:lease"), what="the restored lease")
        lease.check()
        assert lease.token == token
        assert lease.release()


def test_a_refusal_makes_a_busy_connection_ask_again(one: RedisBackend, admin: redis.Redis) -> None:
    """A server that was demoted and promoted again between two requests is another one, silence or not."""
    granted(one, "job")
    admin.execute_command("DEBUG", "CHANGE-REPL-ID")
    with pytest.raises(BackendUnavailable):
        one.acquire("job/2", mint(), 30.0, floor=10**17)
    assert isinstance(one.acquire("job/3", mint(), 30.0), Quarantined)


def test_a_longer_lease_is_in_the_record_before_it_is_granted(one: RedisBackend, admin: redis.Redis) -> None:
    """Also where another thread has wanted one first, and not come to tell the server yet."""
    granted(one, "job", ttl=5.0)
    one._census.allow(100.0)
    granted(one, "long", ttl=100.0)
    assert admin.hget("q:{i}:incarnation", "longest") == b"100000"


def test_a_longer_lease_costs_no_connection(one: RedisBackend) -> None:
    """The server is told on the connection that asks for the lease."""
    granted(one, "job", ttl=5.0)
    (line,) = one._server.node(b"")._spare
    granted(one, "long", ttl=100.0)
    assert one._server.node(b"")._spare == [line]


def test_where_nobody_ever_led_nobody_waits(server: RedisServer, admin: redis.Redis, tmp_path: Path) -> None:
    """Another store knows: every leader registers there before its first effect."""
    with connect(server.url, namespace="q", ttl=5.0) as somebody:
        somebody.lease("other").acquire()
        promote(admin, "other")
        with connect(server.url, markers_url=f"file://{tmp_path}/markers", namespace="q", ttl=5.0) as fresh:
            started = time.monotonic()
            fresh.run_once("step", "r1", lambda: None, timeout=20.0)
            assert time.monotonic() - started < 5.0
            fresh.run_once("step", "r2", lambda: None, timeout=20.0)
            assert time.monotonic() - started > 5.0
