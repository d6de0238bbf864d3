"""What a server is asked when a connection is opened: nothing that goes wrong then may cost the quarantine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from coordinate._identity import mint
from coordinate.backends.redis import incarnation
from coordinate.backends.redis.node import SILENCE, Line
from coordinate.errors import BackendUnavailable
from coordinate.testing.lease_port import granted
from coordinate.types import Capability, Quarantined, Renewed
from tests.servers import opened, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from coordinate.backends.redis import RedisBackend
    from coordinate.backends.redis.wires import Reply
    from tests.servers import RedisServer

LAG = 1
"""Seconds for which an isolated primary may go on, as the servers here are configured."""
RECORD = "t:{i}:incarnation"
HOUR = 3600


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One server, which the test may ruin."""
    with redis_server(tmp_path, "--enable-debug-command", "local", "--min-replicas-max-lag", str(LAG)) as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    """Its administrator."""
    with server.client() as client:
        yield client


@pytest.fixture
def backend(server: RedisServer) -> Iterator[RedisBackend]:
    """One process."""
    backend = opened(server.url)
    yield backend
    backend.close()


def as_guest(server: RedisServer, admin: redis.Redis, *rights: str) -> RedisBackend:
    """Return a client whose user may do everything, but for these rights."""
    admin.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~t:*", "&t:*", "+@all", *rights)
    return opened(server.url.replace("//", "//guest:pw@"))


def promote(admin: redis.Redis) -> None:
    """Give the server the identity that a promotion would."""
    admin.execute_command("DEBUG", "CHANGE-REPL-ID")


def recognised(backend: RedisBackend, admin: redis.Redis) -> bool:
    """Return whether a promotion that comes now makes new owners wait."""
    granted(backend, "before")
    promote(admin)
    backend._server.close()
    return isinstance(backend.acquire("after", mint(), 30), Quarantined)


# What does not say that INFO is hidden


def test_a_full_memory_does_not_switch_the_quarantine_off(backend: RedisBackend, admin: redis.Redis) -> None:
    """The first greeting finds no room for its record: that says nothing about what the server hides."""
    admin.config_set("maxmemory", 1)
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="no memory left: raise maxmemory"):
            backend.acquire("job", mint(), 30)
        assert Capability.FAILOVER in backend.capabilities
    admin.config_set("maxmemory", 0)
    assert recognised(backend, admin)


def test_a_full_successor_renews_and_grants_nothing_new(backend: RedisBackend, admin: redis.Redis) -> None:
    """It cannot note until when new owners wait; they wait all the same, from when it can."""
    grant = granted(backend, "job")
    promote(admin)
    admin.config_set("maxmemory", 1)
    backend._server.close()
    assert backend.renew([grant]) == [Renewed(30)]
    with pytest.raises(BackendUnavailable, match="no memory left"):
        backend.acquire("another", mint(), 30)
    admin.config_set("maxmemory", 0)
    assert isinstance(backend.acquire("another", mint(), 30), Quarantined)


@pytest.mark.parametrize("right", ["evalsha", "hset", "eval"])
def test_another_right_that_is_missing_is_not_taken_for_info(
    server: RedisServer, admin: redis.Redis, right: str
) -> None:
    """An error until it is given; then everything is as ever."""
    backend = as_guest(server, admin, f"-{right}")
    with pytest.raises(BackendUnavailable, match="the user lacks a right"):
        backend.acquire("job", mint(), 30)
    admin.execute_command("ACL", "SETUSER", "guest", f"+{right}")
    assert recognised(backend, admin)
    assert Capability.FAILOVER in backend.capabilities
    backend.close()


def test_info_that_is_allowed_later_is_noticed_by_the_next_connection(server: RedisServer, admin: redis.Redis) -> None:
    """Hidden is what a server says, not what it is for good."""
    backend = as_guest(server, admin, "-info")
    granted(backend, "job")
    assert Capability.FAILOVER not in backend.capabilities
    admin.execute_command("ACL", "SETUSER", "guest", "+info")
    backend._server.close()
    backend.ping()
    assert Capability.FAILOVER in backend.capabilities
    assert recognised(backend, admin)
    backend.close()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Commands to which servers say that a script blocks them."""
    ask, commands = Line.ask, list[bytes]()

    def ask_busy(line: Line, *parts: bytes) -> Reply:
        if parts[0] in commands:
            message = "BUSY Redis is busy running a script."
            raise ResponseError(message)
        return ask(line, *parts)

    monkeypatch.setattr(Line, "ask", ask_busy)
    return commands


def test_a_setting_that_cannot_be_asked_for_now_is_not_taken_for_hidden(
    backend: RedisBackend, admin: redis.Redis, busy: list[bytes]
) -> None:
    """What depends on it is not promised, and asked for again."""
    admin.config_set("appendonly", "yes")
    admin.config_set("appendfsync", "always")
    busy.append(b"CONFIG")
    assert Capability.DURABLE_MARKERS not in backend.capabilities
    with pytest.raises(BackendUnavailable, match="BUSY"):
        backend.doctor()
    busy.clear()
    assert Capability.DURABLE_MARKERS in backend.capabilities


def test_a_wait_is_not_noted_by_a_guess(backend: RedisBackend, admin: redis.Redis, busy: list[bytes]) -> None:
    """For how long an isolated primary goes on is asked for again, where it could not be said."""
    granted(backend, "job")
    admin.config_set("min-replicas-max-lag", 600)
    promote(admin)
    backend._server.close()
    busy.append(b"CONFIG")
    with pytest.raises(BackendUnavailable, match="BUSY"):
        backend.acquire("another", mint(), 30)
    busy.clear()
    answer = backend.acquire("another", mint(), 30)
    assert isinstance(answer, Quarantined)
    assert answer.retry_after > 600


# Two at once


def test_who_greets_while_another_one_does_waits_as_that_one(
    server: RedisServer, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two records one is lost, the other of an earlier life: what the first has noted must not look like all."""
    admin.hset("t:{a}:incarnation", mapping={"incarnation": "earlier", "until": 0, "longest": 30_000, "wait": 0})
    first, second = (opened(server.url) for _ in range(2))
    for backend in (first, second):
        backend._server.node(b"")._greet = backend._census.greeter(lambda _: ("a", "b"))
    ask_lag, answers = incarnation._lag, []

    def interrupted(line: Line) -> int:
        if line.node is first._server.node(b""):
            answers.append(second.acquire("job", mint(), 5))
        return ask_lag(line)

    monkeypatch.setattr(incarnation, "_lag", interrupted)
    answers.append(first.acquire("job", mint(), 5))
    assert [type(answer) for answer in answers] == [Quarantined, Quarantined]
    ends = [int(admin.hget(f"t:{{{tag}}}:incarnation", "until")) for tag in "ab"]
    assert min(ends) > (time.time() + 30) * 10**6
    for backend in (first, second):
        backend.close()


# Clocks that jump


def set_back(admin: redis.Redis, seconds: int) -> None:
    """Make what is noted look as it does when the clock has been set back since."""
    admin.hincrby(RECORD, "until", seconds * 10**6)


def test_a_clock_that_is_set_back_does_not_prolong_the_wait(backend: RedisBackend, admin: redis.Redis) -> None:
    """New owners wait once more from now, no longer; a connection that has asked before the jump asks again."""
    granted(backend, "job")
    promote(admin)
    backend._server.close()
    assert isinstance(backend.acquire("another", mint(), 5), Quarantined)
    set_back(admin, HOUR)
    node = backend._server.node(b"")
    for line in node._spare:
        line.known = line.known._replace(until=line.known.until + HOUR * 10**6)
    answer = backend.acquire("another", mint(), 5)
    assert isinstance(answer, Quarantined)
    assert 29 < answer.retry_after <= 30 + LAG + 1.001
    assert int(admin.hget(RECORD, "until")) < (time.time() + HOUR / 2) * 10**6


def test_a_successor_whose_clock_is_behind_does_not_prolong_the_wait(backend: RedisBackend, admin: redis.Redis) -> None:
    """What is left of an earlier wait was noted by the clock of the server that died."""
    granted(backend, "job")
    promote(admin)
    backend._server.close()
    assert isinstance(backend.acquire("another", mint(), 5), Quarantined)
    set_back(admin, HOUR)
    promote(admin)
    backend._server.close()
    answer = backend.acquire("another", mint(), 5)
    assert isinstance(answer, Quarantined)
    assert 29 < answer.retry_after <= 30 + LAG + 1.001


# What a busy connection is believed


def test_a_reply_tells_of_the_time_of_its_request(backend: RedisBackend, admin: redis.Redis) -> None:
    """A thread that stood still before it gave the connection back has heard nothing meanwhile."""
    granted(backend, "job")
    node = backend._server.node(b"")
    line = node.take()
    line.ask(b"PING")
    promote(admin)
    time.sleep(2 * SILENCE)
    node.put(line)
    assert isinstance(backend.acquire("another", mint(), 30), Quarantined)


def test_a_thread_that_stands_still_before_its_request_has_it_checked(
    backend: RedisBackend, admin: redis.Redis
) -> None:
    """Also when the connection was in use a moment before it was taken."""
    granted(backend, "job")
    line = backend._server.node(b"").take()
    assert line.expected == b""
    promote(admin)
    time.sleep(2 * SILENCE)
    assert line.expected == line.known.incarnation != b""
    backend._server.node(b"").put(line)


def test_a_request_that_checks_nothing_proves_nothing(backend: RedisBackend, admin: redis.Redis) -> None:
    """A release after a silence does not look who the server is: the next grant does."""
    grant = granted(backend, "job")
    time.sleep(2 * SILENCE)
    promote(admin)
    assert backend.release(grant)
    assert isinstance(backend.acquire("another", mint(), 30), Quarantined)


def test_a_late_reply_does_not_prove_what_the_server_is_now(backend: RedisBackend) -> None:
    """It may have been on its way, or unread, for as long as it took."""
    granted(backend, "job")
    node = backend._server.node(b"")
    line = node.take()
    line.ask(b"DEBUG", b"SLEEP", b"%g" % (2 * SILENCE))
    assert line.expected == line.known.incarnation != b""
    node.put(line)
