"""Finding the primary: what Sentinels may say, who is believed, what it costs. The Sentinels' answers are staged."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from redis import exceptions as driver

from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.backends.redis.node import SILENCE, Node
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import Gone, Grant, Held, LossReason, Quarantined, RenewAnswer, Renewed, Topic, Unknown
from coordinate.url import parse
from tests.servers import free_port
from tests.stacks.fake_sentinel import fake_sentinel
from tests.stacks.replicated import replicated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stacks.fake_sentinel import FakeSentinel
    from tests.stacks.replicated import Replicated

TIMEOUT = 0.6


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    """A primary with one replica; the tests promote them in turn."""
    with replicated(tmp_path_factory.mktemp("redis"), replicas=1) as group:
        yield group


@pytest.fixture
def sentinels(group: Replicated) -> Iterator[list[FakeSentinel]]:
    """Three Sentinels that name the primary of an emptied store."""
    with group.primary.client() as client:
        client.flushall()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(fake_sentinel(group.primary.port)) for _ in range(3)]


def opened(addresses: list[str], options: str = "") -> RedisBackend:
    """Return a backend whose answers come soon."""
    url = f"redis+sentinel://{','.join(addresses)}/main/0{options}"
    return RedisBackend.open(parse(url), StoreSettings("t", TIMEOUT))


def on(sentinels: list[FakeSentinel], options: str = "") -> RedisBackend:
    """Return a backend on these Sentinels."""
    return opened([sentinel.address for sentinel in sentinels], options)


def switch(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """Promote the replica, make the primary its replica, and have the Sentinels say so; nothing is lost."""
    group.wait_until_replicated()
    old, (new,) = group.primary, group.replicas
    group.promote(new)
    group.follow(old)
    for sentinel in sentinels:
        sentinel.named = new.port
    group.wait_until_replicated()


def test_most_sentinels_decide_and_no_more_are_asked(sentinels: list[FakeSentinel]) -> None:
    """Two of three that agree are enough; requests afterwards ask nobody."""
    backend = on(sentinels)
    for _ in range(5):
        backend.ping()
    assert [sentinel.asked for sentinel in sentinels] == [1, 1, 0]
    backend.close()


def test_a_cut_off_sentinel_that_names_another_primary_is_outvoted(
    group: Replicated, sentinels: list[FakeSentinel], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its server says of itself, too, that it is a primary; the majority still wins."""
    with replicated(tmp_path_factory.mktemp("old"), replicas=0) as cut_off:
        sentinels[0].named = cut_off.primary.port
        backend = on(sentinels)
        granted(backend, "job")
        with group.primary.client() as client, cut_off.primary.client() as other:
            assert client.exists("t:{l:job}:lease")
            assert other.dbsize() == 0
        backend.close()


def test_a_sentinel_that_names_a_replica_is_not_believed(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """Also where it is the majority: the name counts only if the server agrees."""
    for sentinel in sentinels[:2]:
        sentinel.named = group.replicas[0].port
    backend = on(sentinels)
    with pytest.raises(BackendUnavailable, match="is a replica"):
        backend.ping()
    sentinels[0].named = group.primary.port
    backend.ping()
    assert isinstance(backend.renew([granted(backend, "job")])[0], Renewed)
    backend.close()


def test_dead_and_silent_sentinels_cost_little_and_are_asked_last(sentinels: list[FakeSentinel]) -> None:
    """One that refuses, one that never answers, one that works."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{silent.getsockname()[1]}", sentinels[0].address]
        backend = opened(addresses)
        started = time.monotonic()
        backend.ping()
        assert time.monotonic() - started < TIMEOUT
        assert backend._server._sentinels[0].place == sentinels[0].address
        backend.close()


def test_nobody_who_answers_is_an_error_that_tells_who_said_what(sentinels: list[FakeSentinel]) -> None:
    """In time, with the service, each Sentinel and the server that was named; no password."""
    sentinels[0].named = None
    sentinels[1].named = free_port()
    sentinels[2].password = b"canary-right"
    backend = on(sentinels, "?sentinel_password=canary-wrong")
    started = time.monotonic()
    with pytest.raises(BackendUnavailable) as raised:
        backend.acquire("job", mint(), 30)
    assert time.monotonic() - started < 2 * TIMEOUT
    said = str(raised.value)
    assert all(sentinel.address in said for sentinel in sentinels), said
    for part in (
        "'main'",
        "knows no such service",
        "refused",
        "Authentication required",
        f":{sentinels[1].named}",
        "check the Sent",
    ):
        assert part in said, said
    assert "canary" not in said
    backend.close()


def test_the_sentinels_password_is_not_the_servers(sentinels: list[FakeSentinel]) -> None:
    """It goes to Sentinels only: the server here needs none, and would refuse one."""
    for sentinel in sentinels:
        sentinel.password = b"canary-right"
    backend = on(sentinels, "?sentinel_username=watcher&sentinel_password=canary-right")
    backend.ping()
    assert "canary" not in f"{backend.store_id} {backend.describe()} {backend._server.url}"
    backend.close()


def test_a_deposed_primary_is_left_within_the_same_call(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """It answers READONLY, so nothing was executed there; the lease is carried on, nothing is called held."""
    backend, other = on(sentinels), on(sentinels)
    grant = granted(backend, "job")
    granted(other, "another")
    switch(group, sentinels)
    assert backend.renew([grant]) == [Renewed(30)]
    answer = other.acquire("job", mint(), 30)
    assert isinstance(answer, Held)
    assert answer.record is not None
    assert answer.record.token == grant.token
    assert backend.release(grant)
    backend.close()
    other.close()


def test_a_busy_connection_to_a_deposed_primary_is_left_too(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """No silence, so no greeting, and a script that catches errors: the refusal in it is understood all the same."""
    backend = on(sentinels)
    grant = granted(backend, "job")
    switch(group, sentinels)
    for line in backend._server._node._spare:
        line.seen_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert backend.renew([grant]) == [Renewed(30)]
    backend.close()


def test_a_primary_that_lacks_replicas_is_asked_for_anew(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """Cut off, it still calls itself one, and refuses each renewal: its successor renews instead."""
    backend = on(sentinels)
    grant = granted(backend, "job")
    group.wait_until_replicated()
    old, (new,) = group.primary, group.replicas
    group.promote(new)
    with old.client() as client:
        client.config_set("min-replicas-to-write", 1)
        eventually(lambda: client.info("replication")["connected_slaves"] == 0, what="the loss of the replica")
        for sentinel in sentinels:
            sentinel.named = new.port
        (refused,) = backend.renew([grant])
        assert isinstance(refused, Unknown)
        assert "too few replicas" in refused.why
        assert backend.renew([grant]) == [Renewed(30)]
        client.config_set("min-replicas-to-write", 0)
    group.follow(old)
    group.wait_until_replicated()
    backend.close()


def test_waiting_channels_break_when_the_primary_changes(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """What is published from then on is published elsewhere."""
    backend = on(sentinels)
    watch = backend.watch()
    watch.add(Topic("markers", "site"))
    assert watch.drain() == frozenset()
    switch(group, sentinels)
    backend.break_lease("job")
    with pytest.raises(BackendUnavailable, match="open another"):
        watch.drain()
    watch.close()
    again = backend.watch()
    again.add(Topic("markers", "site"))
    backend.notify(Topic("markers", "site"))
    eventually(lambda: bool(again.drain()), what="the notice")
    again.close()
    backend.close()


def test_a_primary_that_hangs_is_looked_for_anew(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """One request runs out of time; the next one finds the successor although the old one still accepts."""
    backend = on(sentinels)
    backend.ping()
    old = group.primary
    old.pause()
    try:
        with pytest.raises(BackendUnavailable, match="no answer in time"):
            backend.break_lease("job")
        (new,) = group.replicas
        group.promote(new)
        for sentinel in sentinels:
            sentinel.named = new.port
        backend.break_lease("job")
    finally:
        old.resume()
    group.follow(old)
    group.wait_until_replicated()
    backend.close()


def test_a_server_that_hides_its_info_is_asked_for_its_role(group: Replicated, sentinels: list[FakeSentinel]) -> None:
    """A replica is refused all the same."""
    secret = "canary-app"
    for server in group.servers:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", f">{secret}", "~t:*", "&t:*", "+@all", "-info")
    for sentinel in sentinels:
        sentinel.named = group.replicas[0].port
    addresses = ",".join(sentinel.address for sentinel in sentinels)
    backend = RedisBackend.open(parse(f"redis+sentinel://app:{secret}@{addresses}/main"), StoreSettings("t", TIMEOUT))
    with pytest.raises(BackendUnavailable, match="calls itself a slave"):
        backend.ping()
    for sentinel in sentinels:
        sentinel.named = group.primary.port
    backend.ping()
    backend.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://a,b", "name of the service"),
        ("redis+sentinel:///main", "the Sentinels"),
        ("redis+sentinel://a/main/zero", "number of a database"),
        ("redis+sentinel://a/main?sentinel_username=u", "sentinel_password"),
        ("redis+sentinel://a/main?sentinel_port=1", "unknown option"),
        ("redis+sentinel://a/main?ssl_ca_certs=x", "unknown option"),
        ("rediss+sentinel://a/main?ssl_ca_certs=nowhere", "not a file"),
        ("sentinel://a;sentinel://b", "name of the service"),
    ],
)
def test_urls_that_cannot_work_are_refused_at_once(url: str, said: str) -> None:
    """With the right form in the message where a part is missing."""
    with pytest.raises(ConfigError, match=said):
        RedisBackend.open(parse(url), StoreSettings("t", TIMEOUT))


def test_all_spellings_of_one_store_are_one_store() -> None:
    """Order of the hosts, default port, Celery's form."""
    spellings = [
        "redis+sentinel://a:26379,b,[::1]/main/0",
        "redis+sentinel://[::1],b,A/main",
        "sentinel://b:26379;sentinel://a;sentinel://[::1]/main",
        "sentinel://b;sentinel://a;sentinel://[::1]/0?master_name=main",
        "sentinel://b;sentinel://a;sentinel://[::1]?master_name=main",
    ]
    assert len({RedisBackend.open(parse(url), StoreSettings()).store_id for url in spellings}) == 1
    others = ["redis+sentinel://a,b/main", "redis+sentinel://a,b,[::1]/other", "redis+sentinel://a,b,[::1]/main/1"]
    assert len({RedisBackend.open(parse(url), StoreSettings()).store_id for url in [*spellings, *others]}) == 4


def test_a_first_lease_waits_until_every_replica_knows_that_there_are_leases(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A replica that hangs at the first use would, promoted, know nothing of it, and let in anybody at once."""
    with (
        replicated(tmp_path_factory.mktemp("first"), "--min-replicas-max-lag", "1", replicas=1) as group,
        fake_sentinel(group.primary.port) as sentinel,
    ):
        backend, other = on([sentinel]), on([sentinel])
        (replica,) = group.replicas
        replica.pause()
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas confirmed"):
            backend.acquire("job", mint(), 5)
        assert backend.holder("job") is None
        replica.resume()
        group.wait_until_replicated()
        grant = granted(backend, "job", ttl=5)
        replica.pause()
        granted(backend, "as long", ttl=5)
        with pytest.raises(BackendUnavailable, match="0 of 1 replicas confirmed"):
            backend.acquire("longer", mint(), 6)
        group.primary.kill()
        replica.resume()
        group.promote(replica)
        sentinel.named = replica.port
        assert isinstance(other.acquire("longer", mint(), 5), Quarantined)
        assert asked_until_known(backend, grant) == Renewed(5)
        backend.close()
        other.close()


def asked_until_known(backend: RedisBackend, grant: Grant) -> RenewAnswer:
    """Return the first answer to a renewal that is one."""
    answers = [answer for _ in range(3) if not isinstance(answer := backend.renew([grant])[0], Unknown)]
    return answers[0]


def test_a_ghost_on_a_successor_does_not_cost_the_present_owner_its_lease(
    group: Replicated, sentinels: list[FakeSentinel]
) -> None:
    """The lagging replica still has the lease of an earlier owner; that one's token is smaller, so it is a ghost."""
    backend, other = on(sentinels), on(sentinels)
    old, (new,) = group.primary, group.replicas
    earlier = granted(other, "job")
    group.wait_until_replicated()
    with new.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
    assert other.release(earlier)
    grant = granted(backend, "job")
    group.promote(new)
    group.follow(old)
    for sentinel in sentinels:
        sentinel.named = new.port
    assert backend.renew([grant]) == [Renewed(30)]
    # A connection that was busy a moment ago is believed for that long.
    time.sleep(2 * SILENCE)
    record = other.holder("job")
    assert record is not None
    assert record.token == grant.token
    assert other.renew([earlier]) == [Gone(LossReason.TAKEN)]
    group.wait_until_replicated()
    backend.close()
    other.close()


def test_a_server_that_breaks_off_while_a_lease_is_restored_has_not_lost_it(
    group: Replicated, sentinels: list[FakeSentinel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal said that the lease has vanished, the question after it has no answer: that is no loss."""
    backend = on(sentinels)
    grant = granted(backend, "job")
    with group.primary.client() as client:
        client.delete("t:{l:job}:lease")
    with monkeypatch.context() as patch:
        patch.setattr(Node, "ask_who", _broken_off)
        (answer,) = backend.renew([grant])
    assert isinstance(answer, Unknown)
    assert backend.renew([grant]) == [Gone(LossReason.EXPIRED)]
    backend.close()


def _broken_off(*_: object) -> None:
    message = "Connection closed by server."
    raise driver.ConnectionError(message)
