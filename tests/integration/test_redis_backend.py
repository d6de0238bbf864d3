"""What Redis holds, from its bad side: data that got lost, keys that others touched, clocks that are wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, ConfigError, CorruptRecord, StaleToken
from coordinate.testing.lease_port import granted
from coordinate.types import (
    Capability,
    Claim,
    Gone,
    Held,
    LossReason,
    MarkerRecord,
    MarkerState,
    Renewed,
    Unknown,
)
from tests.servers import opened, redis_server

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from coordinate.backends.redis import RedisBackend

DAY = 24 * 3600 * 10**6
LEASE = "t:{l:job}:lease"
DONE = MarkerRecord("migrate", "r1", MarkerState.DONE, 7)


def evaluations(admin: redis.Redis) -> int:
    """Return how many scripts were called since the statistics were reset."""
    return int(admin.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_flushed_data_is_a_loss_and_tokens_go_on_growing(backend: RedisBackend, admin: redis.Redis) -> None:
    """The holder learns that it is gone; the clock keeps tokens above the forgotten ones."""
    grant = granted(backend, "job")
    admin.flushall()
    assert backend.renew([grant]) == [Gone(LossReason.EXPIRED)]
    assert granted(backend, "job").token > grant.token


def test_flushed_scripts_are_loaded_again(backend: RedisBackend, admin: redis.Redis) -> None:
    """NOSCRIPT is healed within the same call."""
    grant = granted(backend, "job")
    admin.script_flush()
    assert backend.renew([grant]) == [Renewed(30)]
    assert backend.release(grant)


def test_an_expiry_beyond_the_ttl_is_armed_again(backend: RedisBackend, admin: redis.Redis) -> None:
    """As after a server clock that was set back, or an expiry that somebody removed."""
    granted(backend, "job", ttl=5)
    for meddle in (lambda: admin.pexpire(LEASE, 3_600_000), lambda: admin.persist(LEASE)):
        meddle()
        answer = backend.acquire("job", mint(), 30)
        assert isinstance(answer, Held)
        assert answer.retry_after <= 5
        assert 0 < admin.pttl(LEASE) <= 5000


def test_a_token_counter_outlives_the_lease_by_days(backend: RedisBackend, admin: redis.Redis) -> None:
    """It goes after a week without use, not with the lease; renewing is use."""
    grant = granted(backend, "job")
    week = 7 * 24 * 3600 * 1000
    assert week - 10_000 < admin.pttl("t:{l:job}:token") <= week
    admin.pexpire("t:{l:job}:token", 1000)
    backend.renew([grant])
    assert admin.pttl("t:{l:job}:token") > week - 10_000


def test_every_digit_of_a_token_counts(backend: RedisBackend) -> None:
    """Tokens are above 2^50, where sloppy number formats round."""
    floor = time.time_ns() // 1000 + DAY // 2
    tokens = [floor]
    for _ in range(5):
        grant = granted(backend, "job", floor=floor)
        tokens.append(grant.token)
        assert backend.release(grant)
    assert tokens == list(range(floor, floor + 6))


def test_a_floor_more_than_a_day_ahead_is_refused(backend: RedisBackend) -> None:
    """A wrong clock somewhere must not spoil the tokens for good."""
    with pytest.raises(BackendUnavailable, match="day ahead"):
        backend.acquire("job", mint(), 30, floor=time.time_ns() // 1000 + 2 * DAY)
    assert backend.holder("job") is None


def test_a_thousand_leases_are_renewed_in_two_requests(backend: RedisBackend, admin: redis.Redis) -> None:
    """Five hundred in each, and a greeting before each if the connection was silent; the answers keep their order."""
    grants = [granted(backend, f"many/{number}") for number in range(1000)]
    backend.release(grants[700])
    admin.config_resetstat()
    answers = backend.renew(grants)
    assert 2 <= evaluations(admin) <= 4
    assert [number for number, answer in enumerate(answers) if not isinstance(answer, Renewed)] == [700]


def test_an_old_grant_of_the_same_owner_is_taken(backend: RedisBackend) -> None:
    """The nonce is the same, but the lease lapsed between: only the newest grant is renewed."""
    owner = mint()
    old = granted(backend, "job", owner)
    backend.release(old)
    new = granted(backend, "job", owner)
    assert backend.renew([old, new]) == [Gone(LossReason.TAKEN), Renewed(30)]


def test_one_unusable_key_does_not_spoil_the_batch(backend: RedisBackend, admin: redis.Redis) -> None:
    """Its own grant is Unknown, the others are renewed."""
    grants = [granted(backend, name) for name in ("a", "job", "b")]
    admin.delete(LEASE)
    admin.set(LEASE, "something else")
    first, second, third = backend.renew(grants)
    assert first == third == Renewed(30)
    assert isinstance(second, Unknown)
    assert "WRONGTYPE" in second.why


def test_a_key_of_somebody_else_is_an_error_with_advice(backend: RedisBackend, admin: redis.Redis) -> None:
    """Never taken for "held"; breaking the lease removes it."""
    admin.set(LEASE, "something else")
    with pytest.raises(BackendUnavailable, match="COORDINATE_NAMESPACE"):
        backend.acquire("job", mint(), 30)
    backend.break_lease("job")
    granted(backend, "job")


def test_a_damaged_lease_is_reported_as_such(backend: RedisBackend, admin: redis.Redis) -> None:
    """Missing fields and unreadable owners raise; breaking the lease repairs it."""
    granted(backend, "job")
    for meddle in (lambda: admin.hset(LEASE, "owner", "{"), lambda: admin.hdel(LEASE, "ttl")):
        meddle()
        with pytest.raises(CorruptRecord):
            backend.acquire("job", mint(), 30)
        with pytest.raises(CorruptRecord):
            backend.holder("job")
    backend.break_lease("job")
    granted(backend, "job")


@pytest.mark.parametrize(
    "damage", ["", "{", '{"state": "done"}', '{"v":9,"step":"migrate","revision":"r1","state":"done"}']
)
def test_a_damaged_marker_is_left_out_and_can_be_written_again(
    backend: RedisBackend, admin: redis.Redis, damage: str
) -> None:
    """It is never taken for done, neither by readers nor by the next write."""
    backend.claim("site", Claim(7, mint()))
    backend.put_marker("site", DONE, 7)
    admin.hset("t:{m:site}:markers", "migrate@r1", damage)
    assert backend.markers("site").records == ()
    backend.put_marker("site", DONE, 7)
    assert backend.markers("site").records == (DONE,)


def test_a_damaged_claim_is_reported_as_such(backend: RedisBackend, admin: redis.Redis) -> None:
    """Neither readers nor an older leader get past it."""
    backend.claim("site", Claim(7, mint()))
    admin.hset("t:{m:site}:claim", "record", "{")
    with pytest.raises(CorruptRecord):
        backend.markers("site")
    admin.hset("t:{m:site}:claim", "token", "seven")
    with pytest.raises(CorruptRecord):
        backend.claim("site", Claim(8, mint()))
    with pytest.raises(CorruptRecord):
        backend.put_marker("site", DONE, 7)


def test_tokens_of_claims_are_exact_at_any_size(backend: RedisBackend) -> None:
    """Other stores' tokens may be beyond what a double holds."""
    big = 2**63
    backend.claim("site", Claim(big + 1, mint()))
    with pytest.raises(StaleToken) as refused:
        backend.claim("site", Claim(big, mint()))
    assert refused.value.floor == big + 1
    backend.claim("site", Claim(big + 2, mint()))


def test_records_that_nobody_could_read_are_not_stored(backend: RedisBackend) -> None:
    """The limit is the readers'."""
    backend.claim("site", Claim(7, mint()))
    with pytest.raises(ConfigError, match="too large"):
        backend.put_marker("site", MarkerRecord("migrate", "r1", MarkerState.FAILED, 7, detail="x" * 70_000), 7)
    assert backend.markers("site").records == ()


def test_names_with_odd_characters_stay_in_their_keys(backend: RedisBackend, admin: redis.Redis) -> None:
    """Braces, globs and colons neither break the hash tag nor match what they should not."""
    odd = "a}:lease*[x]?"
    granted(backend, odd)
    granted(backend, "a")
    assert [record.name for record in backend.leases("a}")] == [odd]
    assert all(key.count(b"{") == key.count(b"}") == 1 for key in admin.keys("t:*"))


def test_durable_markers_are_declared_only_where_they_are(tmp_path: Path, backend: RedisBackend) -> None:
    """With fsync before every reply an acknowledged done survives kill -9."""
    assert Capability.DURABLE_MARKERS not in backend.capabilities
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        durable = opened(server.url)
        assert Capability.DURABLE_MARKERS in durable.capabilities
        assert "always" in durable.describe()["persistence"]
        durable.claim("site", Claim(7, mint()))
        durable.put_marker("site", DONE, 7)
        server.restart()
        assert opened(server.url).markers("site").records == (DONE,)
        server.client().config_set("appendfsync", "everysec")
        assert Capability.DURABLE_MARKERS not in opened(server.url).capabilities
        durable.close()
