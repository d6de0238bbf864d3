"""Leaders that die or hang, sessions that expire, data that is wiped, credentials that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from zookeeper_ensemble import Ensemble, Server, standalone

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing import OpenBackend, eventually, opener
from coordinate.testing.lease_port import granted
from coordinate.testing.watch_port import woken
from coordinate.types import Gone, Granted, Held, Renewed, Topic, Unknown
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def clients(three: Ensemble, chroot: str) -> Iterator[OpenBackend]:
    """Clients of three servers; a request gives up after five seconds."""
    with opener(ZooKeeperBackend, three.url(chroot), timeout=5) as clients:
        yield clients


def test_a_leader_killed_while_held_and_waited_for_changes_nothing(three: Ensemble, clients: OpenBackend) -> None:
    """The holder renews in the same session, the waiter keeps its place and is told of the release."""
    backend, other = clients(), clients()
    grant, owner, watch = granted(backend, "kept"), mint(), other.watch()
    assert isinstance(other.acquire("kept", owner, 30, queue=watch), Held)
    leader = three.leader()
    leader.kill()
    eventually(lambda: isinstance(backend.renew([grant])[0], Renewed), what="renewal")
    eventually(lambda: _release(other, backend, grant), what="release")
    topic = Topic("lease", "kept", owner.nonce)
    assert woken(watch, topic)
    eventually(lambda: isinstance(_try(other, owner, watch), Granted), what="the waiter's grant")
    assert other.acquire("kept", owner, 30).grant.token > grant.token
    watch.close()
    leader.start()


def _release(other: ZooKeeperBackend, backend: ZooKeeperBackend, grant: object) -> bool:
    try:
        assert other.holder("kept") is not None
        return backend.release(grant)
    except BackendUnavailable:
        return False


def _try(other: ZooKeeperBackend, owner: object, watch: object) -> object:
    try:
        return other.acquire("kept", owner, 30, queue=watch)
    except BackendUnavailable:
        return None


def test_without_servers_renewal_is_unknown_and_after_expiry_gone(tmp_path: Path) -> None:
    """Suspended is not lost: only the ensemble can say that a session has expired."""
    with standalone(tmp_path) as server, opener(ZooKeeperBackend, server.url(), timeout=1) as clients:
        backend = clients()
        grant = granted(backend, "suspended", ttl=2.0)
        server.each(Server.kill)
        eventually(lambda: isinstance(backend.renew([grant])[0], Unknown), what="doubt")
        with pytest.raises(BackendUnavailable):
            clients().ping()
        server.each(Server.start)
        eventually(lambda: isinstance(backend.renew([grant])[0], Renewed | Gone), what="an answer")


def test_a_floor_lifts_tokens_over_a_wiped_ensemble(tmp_path: Path) -> None:
    """The ensemble starts to count again; the marker store knows better."""
    with standalone(tmp_path) as server, opener(ZooKeeperBackend, server.url(), timeout=15) as clients:
        before = granted(clients(), "wiped", floor=10_000).token
        server.each(Server.kill)
        server.each(Server.wipe)
        server.each(Server.start)
        client = clients()
        after = granted(client, "wiped", floor=before)
        assert after.token > before
        assert client.release(after)
        assert granted(client, "wiped").token > after.token


def test_every_node_belongs_to_the_credentials(zookeeper: Ensemble, chroot: str) -> None:
    """Others can neither read, nor change, nor take the lease; a wrong password is told as such."""
    chroot = f"/own{chroot}"  # what lies above is closed to other tests, too
    with opener(ZooKeeperBackend, zookeeper.url(chroot, "us:s3cret@")) as clients:
        grant = granted(clients(), "ours")
        assert clients().doctor() == []
        stranger = KazooClient(zookeeper.hosts)
        stranger.start(timeout=15)
        with pytest.raises(NoAuthError):
            stranger.get_children(f"{chroot}/contract/leases")
        stranger.stop()
        stranger.close()
        with (
            opener(ZooKeeperBackend, zookeeper.url(chroot, "us:wr0ng@")) as strangers,
            pytest.raises(BackendUnavailable, match="password") as refused,
        ):
            strangers().holder(grant.name)
        assert "wr0ng" not in str(refused.value)


def test_a_held_lease_is_left_to_expire_on_close(zookeeper: Ensemble, chroot: str) -> None:
    """Closing never ends the protection of work that may still run."""
    with opener(ZooKeeperBackend, zookeeper.url(chroot)) as clients:
        holder, looker = clients(), clients()
        granted(holder, "left", ttl=3.0)
        holder.close()
        assert looker.holder("left") is not None
        eventually(lambda: looker.holder("left") is None, what="expiry")


def test_after_a_lost_answer_there_is_one_node_and_an_abandoned_one_is_swept(tmp_path: Path) -> None:
    """The server carries out later what we have given up on: the same nonce finds it, nobody's is removed."""
    with standalone(tmp_path) as server, opener(ZooKeeperBackend, server.url(), timeout=1) as clients:
        backend, owner, abandoned = clients(), mint(), mint()
        for name in ("again", "swept"):
            eventually(lambda name=name: backend.release(granted(backend, name, ttl=8.0)), what="a connection")
        server.each(Server.pause)
        for name, who in (("again", owner), ("swept", abandoned)):
            with pytest.raises(BackendUnavailable):
                backend.acquire(name, who, 8.0)
        server.each(Server.resume)
        with opener(ZooKeeperBackend, server.url(), timeout=15) as others:
            looker = others()
            eventually(lambda: looker.holder("again") is not None, what="the belated node")
            assert looker.holder("again").owner == owner
            grant = granted(backend, "again", owner, ttl=8.0)
            assert looker.holder("again").token == grant.token
            assert backend.release(grant)
            assert looker.holder("again") is None
            eventually(lambda: looker.holder("swept") is None, what="the sweep")
