"""Redis Cluster under change: slots move and primaries die while leases are held and waited for."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate._identity import mint
from coordinate.backends.redis.failures import RIGHTS
from coordinate.backends.redis.slots import slot_of, tag_in
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import Capability, Granted, Held, Quarantined, Renewed, Unknown
from tests.servers import opened, redis_server
from tests.stacks.cluster import redis_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coordinate.backends.redis import RedisBackend
    from coordinate.lease import Lease
    from tests.stacks.cluster import Cluster

TTL = 9.0
WITHIN = 60.0
"""Seconds: a bound that only a hang reaches."""


@pytest.fixture(scope="module")
def formed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One Cluster for all tests; those that kill a server bring it back."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(formed: Cluster) -> Cluster:
    """The Cluster, whole and empty."""
    formed.close_slots()
    formed.wait_ok()
    formed.flush()
    return formed


@pytest.fixture
def one(cluster: Cluster) -> Iterator[RedisBackend]:
    """One process."""
    backend = opened(cluster.url())
    yield backend
    backend.close()


@pytest.fixture
def other(cluster: Cluster) -> Iterator[RedisBackend]:
    """Another process, which lists the servers in another order."""
    backend = opened(cluster.url(reverse=True))
    yield backend
    backend.close()


def lease_key(name: str) -> str:
    """Return the key of a lease of these tests' namespace; core's is ``coordinate``, of which the tag is the same."""
    return f"t:{{l:{name}}}:lease"


def slot(name: str) -> int:
    """Return the slot of a lease."""
    return slot_of(lease_key(name).encode())


def on(cluster: Cluster, port: int, start: str = "n") -> str:
    """Return a name whose keys are on the server of this port."""
    names = (f"{start}{number}" for number in range(1000))
    return next(name for name in names if cluster.owner(lease_key(name)).port == port)


def primaries(cluster: Cluster) -> list[int]:
    """Return the ports of the primaries, by slots."""
    return list(dict.fromkeys(each.port for each in cluster.slots()))


# Slots that move


def test_a_lease_is_held_on_when_its_slot_has_moved(cluster: Cluster, one: RedisBackend, other: RedisBackend) -> None:
    """Renewed with its token, held for others, given back."""
    grant = granted(one, "job")
    cluster.move(slot("job"), cluster.another(cluster.owner(lease_key("job"))))
    assert one.renew([grant]) == [Renewed(grant.ttl)]
    answer = other.acquire("job", mint(), 30)
    assert isinstance(answer, Held)
    assert answer.record is not None
    assert answer.record.token == grant.token
    assert one.release(grant)
    assert granted(other, "job").token > grant.token


def test_a_slot_under_way_is_followed(cluster: Cluster, one: RedisBackend, other: RedisBackend) -> None:
    """A name of which nothing is left, or never was, at the source is served by the target, however long it lasts."""
    grant = granted(one, "job")
    source = cluster.owner(lease_key("job"))
    target = cluster.another(source)
    cluster.begin_move(slot("job"), source, target)
    try:
        assert one.renew([grant]) == [Renewed(30)], "while its keys are at the source"
        cluster.move_keys(slot("job"), source, target)
        assert one.renew([grant]) == [Renewed(30)], "and when they are at the target"
        assert isinstance(other.acquire("job", mint(), 30), Held)
        assert one.release(grant)
        newer = granted(other, "job")
        assert newer.token > grant.token
    finally:
        cluster.end_move(slot("job"), target)
    cluster.wait_ok()
    assert other.renew([newer]) == [Renewed(30)]
    assert other.release(newer)


def test_keys_that_are_split_by_a_move_are_an_error_and_come_together(cluster: Cluster, one: RedisBackend) -> None:
    """Neither "lost" nor "somebody else's": unknown, until the move goes on."""
    grant = granted(one, "job")
    source = cluster.owner(lease_key("job"))
    target = cluster.another(source)
    cluster.begin_move(slot("job"), source, target)
    try:
        cluster.move_keys(slot("job"), source, target, lease_key("job"))
        (answer,) = one.renew([grant])
        assert isinstance(answer, Unknown)
        assert "moving" in str(answer.why)
        with pytest.raises(BackendUnavailable, match="moving"):
            one.acquire("job", mint(), 30)
        cluster.move_keys(slot("job"), source, target)
        assert one.renew([grant]) == [Renewed(30)]
    finally:
        cluster.move_keys(slot("job"), source, target)
        cluster.end_move(slot("job"), target)
    cluster.wait_ok()
    assert one.release(grant)


def test_who_stands_in_line_gets_it_when_the_slot_has_moved(cluster: Cluster) -> None:
    """The message of the new server reaches those who listen to the old one; nobody is forgotten."""
    got: list[str] = []
    with connect(cluster.url(), ttl=60.0) as holder:
        lease = holder.lease("job").acquire(5)

        def wait(name: str) -> None:
            with connect(cluster.url(), ttl=60.0) as mine:
                turn = mine.lease("job").acquire(WITHIN)
                got.append(name)
                turn.release()

        waiters = [threading.Thread(target=wait, args=(name,)) for name in "abc"]
        for waiter in waiters:
            waiter.start()
        key = "coordinate:{l:job}:waiters"
        eventually(lambda: len(cluster.read(key)) == len(waiters), within=WITHIN, what="the line")
        cluster.move(slot("job"), cluster.another(cluster.owner(lease_key("job"))))
        assert got == []
        lease.check()
        assert lease.release()
        given_back = time.monotonic()
        for waiter in waiters:
            waiter.join(WITHIN)
    assert sorted(got) == ["a", "b", "c"]
    # Half of the time after which they would have looked for themselves.
    assert time.monotonic() - given_back < 30


def test_names_of_all_servers_are_renewed_in_one_conversation_each(
    cluster: Cluster, one: RedisBackend, other: RedisBackend
) -> None:
    """Also after one of the slots has moved: what is refused among others is followed."""
    grants = [granted(one, f"many/{number}") for number in range(200)]
    server = one._server
    conversations = list(server.plan([lease_key(grant.name).encode() for grant in grants]))
    assert len(conversations) == 3
    assert sorted(index for talk in conversations for index in talk) == list(range(200))
    assert one.renew(grants) == [Renewed(30)] * 200
    moved = slot("many/7")
    cluster.move(moved, cluster.another(cluster.owner(lease_key("many/7"))))
    assert one.renew(grants) == [Renewed(30)] * 200
    assert {record.name for record in other.leases("many/")} == {grant.name for grant in grants}


# Which life of a server


def test_slots_that_move_make_nobody_wait(tmp_path: Path) -> None:
    """The record about a server lies in slots of its own, and these move, too: it is no other life.

    On servers that were never promoted: a Cluster of its own.
    """
    with redis_cluster(tmp_path) as cluster:
        one = opened(cluster.url())
        ports = primaries(cluster)
        for port in ports:
            granted(one, on(cluster, port))
        edges = [each for each in cluster.slots() if each.port == ports[0]]
        target = cluster.server(ports[1])
        for edge in sorted({edges[0].first, edges[-1].last}):
            cluster.move(edge, target)
        newcomer = opened(cluster.url())
        for port in ports:
            assert isinstance(newcomer.acquire(on(cluster, port, "late"), mint(), 30), Granted)
        newcomer.close()
        one.close()


def test_a_quarantine_survives_that_its_record_moves_away(cluster: Cluster, one: RedisBackend) -> None:
    """One of the two records stays with the server."""
    port = primaries(cluster)[0]
    name = on(cluster, port)
    granted(one, name)
    old = cluster.fail_over(lease_key(name))
    new = cluster.owner(lease_key(name))
    newcomer = opened(cluster.url(reverse=True))
    assert isinstance(newcomer.acquire(on(cluster, new.port, "x"), mint(), 30), Quarantined)
    assert isinstance(newcomer.acquire(name, mint(), 30), Held | Quarantined)
    lowest = min(each.first for each in cluster.slots() if each.port == new.port)
    assert cluster.read(f"t:{{{tag_in(lowest)}}}:incarnation")[b"until"] != b"0"
    cluster.restart(old)
    cluster.move(lowest, cluster.another(new))
    fresh = opened(cluster.url())
    assert isinstance(fresh.acquire(on(cluster, new.port, "fresh"), mint(), 30), Quarantined)
    fresh.close()
    newcomer.close()


def test_a_new_server_takes_its_first_slots(
    cluster: Cluster, one: RedisBackend, other: RedisBackend, tmp_path: Path
) -> None:
    """Leases move to it, and are granted there while the first slot is under way; nobody waits."""
    grant = granted(one, "job")
    source = cluster.owner(lease_key("job"))
    with cluster.joined_by(tmp_path) as new:
        # With the record about the source: as `redis-cli --cluster reshard` does, from the lowest slot on.
        lowest = min(each.first for each in cluster.slots() if each.port == source.port)
        assert cluster.read(f"t:{{{tag_in(lowest)}}}:incarnation")
        cluster.move(lowest, new)
        cluster.begin_move(slot("job"), source, new)
        cluster.move_keys(slot("job"), source, new)
        assert one.renew([grant]) == [Renewed(30)]
        assert one.release(grant)
        newer = granted(other, "job")
        cluster.end_move(slot("job"), new)
        cluster.wait_ok()
        assert other.renew([newer]) == [Renewed(30)]
        assert cluster.owner(lease_key("job")) is new
        assert other.release(newer)
        granted(one, "job")


# Primaries that die


def test_a_held_lease_lives_through_the_death_of_its_primary(cluster: Cluster) -> None:
    """Restored if it was lost, with its token; nobody new gets it meanwhile."""
    with connect(cluster.url(), ttl=TTL) as coordinator, connect(cluster.url(), ttl=TTL) as second:
        lease = coordinator.lease("job").acquire(5)
        token = lease.token
        key = "coordinate:{l:job}:lease"
        # What a replica that lagged would lack.
        with cluster.client(key) as client:
            client.delete(key)
            client.execute_command("WAIT", 1, 1000)
        old = cluster.fail_over(key)
        assert not second.lease("job").try_acquire()
        eventually(lambda: bool(cluster.read(key)), within=TTL, what="the restored lease")
        lease.check()
        assert lease.token == token
        assert not second.lease("job").try_acquire()
        assert lease.release()
        cluster.restart(old)


def released(lease: Lease) -> bool:
    """Return whether a lease is given back; not while the store gives no usable answer."""
    try:
        return lease.release()
    except BackendUnavailable:
        return False


def test_who_waits_gets_it_after_the_death_of_the_primary(cluster: Cluster) -> None:
    """The channel is opened anew on the successor."""
    with connect(cluster.url(), ttl=TTL) as coordinator, connect(cluster.url(), ttl=TTL) as second:
        lease = coordinator.lease("job").acquire(5)
        taken = threading.Event()
        waiter = threading.Thread(target=lambda: (second.lease("job").acquire(WITHIN), taken.set()))
        waiter.start()
        key = "coordinate:{l:job}:waiters"
        eventually(lambda: bool(cluster.read(key)), within=WITHIN, what="the line")
        old = cluster.fail_over(key)
        lease.check()
        # The client's map may be a tenth of a second older than the failover: it says so, and is asked again.
        eventually(lambda: released(lease), within=WITHIN, what="the successor")
        assert taken.wait(WITHIN)
        waiter.join()
        cluster.restart(old)


def test_other_servers_leases_do_not_notice(cluster: Cluster, one: RedisBackend) -> None:
    """While one primary is dead, what the others have is renewed; what it had is unknown, not lost."""
    grants = [granted(one, on(cluster, port)) for port in primaries(cluster)]
    old = cluster.kill_owner(lease_key(grants[0].name))
    answers = one.renew(grants)
    assert isinstance(answers[0], Unknown)
    assert answers[1:] == [Renewed(30)] * 2
    *_, last = one._server.plan([lease_key(grant.name).encode() for grant in grants])
    assert list(last) == [0], "if it hung, the others would not have to wait for it"
    eventually(lambda: one.renew(grants) == [Renewed(30)] * 3, within=WITHIN, what="the successor")
    cluster.restart(old)


# Finding the servers


def test_a_seed_that_hangs_or_is_gone_is_passed_over(cluster: Cluster) -> None:
    """Any of them tells the map."""
    serving = primaries(cluster)
    # A replica now, whatever the tests before have made of the servers.
    replica = next(server for server in cluster.alive if server.port not in serving)
    hosts = ",".join(f"127.0.0.1:{port}" for port in (1, replica.port, *serving[:2]))
    replica.pause()
    try:
        backend = opened(f"redis+cluster://{hosts}")
        backend.ping()
        backend.close()
    finally:
        replica.resume()


def test_the_rights_that_a_cluster_needs_besides(cluster: Cluster) -> None:
    """``+cluster|slots +asking``, also while a slot is under way; without ``+info`` on the Cluster's state."""
    for server in cluster.servers:
        with server.client() as client:
            rights = f"{RIGHTS} +cluster|slots +asking".replace("<namespace>", "t").split()
            client.execute_command("ACL", "SETUSER", "guest", "reset", "on", ">pw", *rights)
    backend = opened(cluster.url().replace("://", "://guest:pw@"))
    grant = granted(backend, "job")
    source = cluster.owner(lease_key("job"))
    target = cluster.another(source)
    cluster.begin_move(slot("job"), source, target)
    cluster.move_keys(slot("job"), source, target)
    assert backend.renew([grant]) == [Renewed(30)]
    cluster.end_move(slot("job"), target)
    cluster.wait_ok()
    assert [record.name for record in backend.leases()] == ["job"]
    assert backend.release(grant)
    backend.close()
    for server in cluster.servers:
        with server.client() as client:
            client.execute_command("ACL", "DELUSER", "guest")


def test_listing_goes_on_when_an_edge_of_a_server_has_moved(cluster: Cluster, one: RedisBackend) -> None:
    """The silent connection's greeting is refused there: the map is old, and nothing else is wrong."""
    granted(one, "job")
    first, _, port, _ = cluster.slots()[0]
    source = cluster.server(port)
    target = cluster.another(source)
    time.sleep(0.3)
    cluster.move(first, target)
    assert [record.name for record in one.leases()] == ["job"]
    cluster.move(first, source)


def test_markers_are_durable_if_all_primaries_say_so(cluster: Cluster) -> None:
    """One that keeps nothing on its disk is enough to promise nothing."""
    ports = primaries(cluster)
    for port in ports:
        for name, value in (("appendonly", "yes"), ("appendfsync", "always")):
            with cluster.server(port).client() as client:
                client.config_set(name, value)
    try:
        with contextlib.closing(opened(cluster.url())) as backend:
            assert Capability.DURABLE_MARKERS in backend.capabilities
        for port in ports:
            with cluster.server(port).client() as client:
                client.config_set("appendfsync", "everysec")
                with contextlib.closing(opened(cluster.url())) as backend:
                    assert Capability.DURABLE_MARKERS not in backend.capabilities
                client.config_set("appendfsync", "always")
    finally:
        for port in ports:
            with cluster.server(port).client() as client:
                client.config_set("appendonly", "no")


def test_a_record_whose_slot_moves_is_not_written_in_a_leases_stead(cluster: Cluster, one: RedisBackend) -> None:
    """The first lease needs the record on the replicas; the redirection of its slot is not the lease's."""
    port = primaries(cluster)[0]
    source = cluster.server(port)
    low = min(each.first for each in cluster.slots(source))
    target = cluster.another(source)
    node = one._server.node(lease_key(on(cluster, port)).encode())
    line = node.take()
    assert len(line.known.alone) == 2
    cluster.begin_move(low, source, target)
    try:
        cluster.move_keys(low, source, target)
        one._census.prepare(line, line.known.longest)
        assert line.known.alone == ()
    finally:
        node.put(line)
        cluster.end_move(low, source)
        cluster.wait_ok()


def test_a_single_server_is_no_cluster(tmp_path: Path) -> None:
    """The message says which URL to write."""
    with redis_server(tmp_path) as server:
        backend = opened(f"redis+cluster://127.0.0.1:{server.port}")
        with pytest.raises(BackendUnavailable, match="redis://"):
            backend.ping()
        backend.close()


def test_nobody_there_is_said_soon() -> None:
    """With the address."""
    backend = opened("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1"):
        backend.acquire("job", mint(), 30)
    backend.close()
