"""What is done without asking again: only as long as nobody has told that something has changed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient

from coordinate._identity import mint
from coordinate.testing import eventually, opener
from coordinate.testing.kit import record
from coordinate.testing.lease_port import granted
from coordinate.testing.watch_port import woken
from coordinate.types import Claim, Granted, Held, Renewed, Topic
from coordinate_zookeeper import lines
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zookeeper_ensemble import Ensemble

    from coordinate.testing.kit import Clients
    from coordinate.types import Owner


@pytest.fixture
def clients(zookeeper: Ensemble, chroot: str) -> Iterator[Clients]:
    """Return what opens clients of a store that is empty."""
    with opener(ZooKeeperBackend, zookeeper.url(chroot)) as found:
        yield found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each request of this process: what is asked for; pings are none."""
    names: list[str] = []
    original = KazooClient._call

    def call(client: KazooClient, request: object, result: object) -> object:
        names.append(type(request).__name__)
        return original(client, request, result)

    monkeypatch.setattr(KazooClient, "_call", call)
    return names


@pytest.fixture
def operator(zookeeper: Ensemble, chroot: str) -> Iterator[KazooClient]:
    """Return a bare client that sees the leases of that store below its root."""
    client = KazooClient(zookeeper.hosts)
    client.start(timeout=15)
    client.chroot = f"{chroot}/contract/leases"  # which is there when the first lease is
    yield client
    client.stop()
    client.close()


def somebody(name: str) -> tuple[Owner, Topic]:
    """Return somebody who waits, and for what."""
    owner = mint()
    return owner, Topic("lease", name, owner.nonce)


def test_a_pair_on_a_name_that_nobody_else_wants_is_two_requests(clients: Clients, asked: list[str]) -> None:
    """One makes the node, one removes it, from the second pair on."""
    backend = clients()
    backend.release(granted(backend, "idle"))
    asked.clear()
    for _ in range(3):
        backend.release(granted(backend, "idle"))
    assert asked == ["Create2", "Delete"] * 3


def test_who_has_entered_meanwhile_is_seen(clients: Clients) -> None:
    """A line that was left empty is not taken for empty for ever."""
    backend, other = clients(), clients()
    backend.release(granted(backend, "left"))
    theirs = granted(other, "left")
    assert isinstance(backend.acquire("left", mint(), 30), Held)
    other.release(theirs)
    assert granted(backend, "left").token > theirs.token


def test_a_line_that_was_made_anew_is_seen_although_its_numbers_fit(clients: Clients, operator: KazooClient) -> None:
    """Numbers start again: the next one may be ours although somebody is before us."""
    backend, other = clients(), clients()
    backend.release(granted(backend, "anew"))
    operator.delete("/anew")
    theirs = granted(other, "anew")
    assert operator.get_children("/anew")[0].endswith("~0000000000")
    assert isinstance(backend.acquire("anew", mint(), 30), Held)
    assert other.renew([theirs]) == [Renewed(theirs.ttl)]


def test_a_break_raises_the_token_of_a_line_that_was_left(clients: Clients) -> None:
    """The ground that was read before does not count any more."""
    backend, other = clients(), clients()
    first = granted(backend, "raised")
    backend.release(first)
    raised = other.break_lease("raised")
    grant = granted(backend, "raised")
    assert grant.token > raised > first.token
    held = other.holder("raised")
    assert held is not None
    assert held.token == grant.token


def test_the_second_in_line_takes_over_from_a_broken_holder(clients: Clients) -> None:
    """He is told in one transaction of the end of the holder and of the raised token."""
    backend, other = clients(), clients()
    grant = granted(backend, "broken")
    watch = other.watch()
    owner, topic = somebody("broken")
    assert isinstance(other.acquire("broken", owner, 30, queue=watch), Held)
    raised = backend.break_lease("broken")
    assert woken(watch, topic)
    answer = other.acquire("broken", owner, 30, queue=watch)
    assert isinstance(answer, Granted)
    assert answer.grant.token > raised > grant.token
    held = backend.holder("broken")
    assert held is not None
    assert (held.owner, held.token) == (owner, answer.grant.token)
    watch.close()


def test_the_second_in_line_asks_for_nothing_but_himself(clients: Clients, asked: list[str]) -> None:
    """One request, made as soon as he is told; its age counts against the lease."""
    backend, other = clients(), clients()
    grant = granted(backend, "short")
    watch = other.watch()
    owner, topic = somebody("short")
    assert isinstance(other.acquire("short", owner, 30, queue=watch), Held)
    asked.clear()
    backend.release(grant)
    assert woken(watch, topic)
    answer = other.acquire("short", owner, 30, queue=watch)
    assert isinstance(answer, Granted)
    assert 0 < answer.age < 0.5
    assert asked == ["Delete", "GetData"]
    assert other.renew([answer.grant]) == [Renewed(answer.grant.ttl)]
    watch.close()


def test_a_waiter_whose_node_was_removed_gets_nothing_for_it(clients: Clients, operator: KazooClient) -> None:
    """His turn has come, but he is not there: he enters once more."""
    backend, other = clients(), clients()
    grant = granted(backend, "removed")
    watch = other.watch()
    owner, topic = somebody("removed")
    assert isinstance(other.acquire("removed", owner, 30, queue=watch), Held)
    (node,) = [name for name in operator.get_children("/removed") if name.startswith(owner.nonce)]
    operator.delete(f"/removed/{node}")
    backend.release(grant)
    assert woken(watch, topic)
    answer = other.acquire("removed", owner, 30, queue=watch)
    assert isinstance(answer, Granted)
    (again,) = operator.get_children("/removed")
    assert again != node
    assert again.startswith(owner.nonce)
    watch.close()


def watchers(backend: ZooKeeperBackend) -> int:
    """Return how many callbacks wait for some node of that client's."""
    drivers = [session._driver for session in backend._life.sessions._by_length.values()]
    return sum(len(found) for driver in drivers if driver for found in driver._data_watchers.values())


def test_a_waiter_has_one_watch_however_often_he_looks_and_none_when_he_has_left(clients: Clients) -> None:
    """Or each of thousands would ask for him at the same instant, and those of the gone would stay for ever."""
    backend, other = clients(), clients()
    assert isinstance(other, ZooKeeperBackend)
    grant = granted(backend, "looked-at")
    watch = other.watch()
    for _ in range(3):
        owner, topic = somebody("looked-at")
        for _ in range(20):
            assert isinstance(other.acquire("looked-at", owner, 30, queue=watch), Held)
        assert watchers(other) == 2  # the holder, and the line
        other.withdraw("looked-at", owner)
        assert watchers(other) == 1
    owner, topic = somebody("looked-at")
    assert isinstance(other.acquire("looked-at", owner, 30, queue=watch), Held)
    backend.release(grant)
    assert woken(watch, topic)
    assert isinstance(other.acquire("looked-at", owner, 30, queue=watch), Granted)
    watch.close()


def test_who_writes_a_scope_without_knowing_of_news_takes_them_back(
    zookeeper: Ensemble, clients: Clients, chroot: str
) -> None:
    """An older version writes the node as it has read it: what it says was done may be gone since."""
    backend, topic, done = clients(), Topic("markers", "mixed"), record(token=7)
    watch = clients().watch()
    watch.add(topic)
    backend.claim("mixed", Claim(7, mint()))
    backend.put_marker("mixed", done, 7)
    eventually(lambda: watch.news(topic).record == done, what="the record")
    number = watch.news(topic).number
    stranger = KazooClient(zookeeper.hosts)
    stranger.start(timeout=15)
    node = f"{chroot}/contract/markers/mixed"
    data, _ = stranger.get(node)
    stranger.set(node, data)
    stranger.stop()
    stranger.close()
    eventually(lambda: watch.news(topic).number > number, what="the change")
    assert watch.news(topic).record is None
    watch.close()


def test_no_name_is_refused_the_short_way_by_those_that_are_not_used_any_more(
    clients: Clients, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many lines are watched; those that have changed since make room."""
    monkeypatch.setattr(lines, "MOST", 3)
    backend = clients()
    for number in range(4):
        backend.release(granted(backend, f"of-many/{number}"))
    asked.clear()
    backend.release(granted(backend, "of-many/3"))
    assert len(asked) > 2, "there was room for a fourth"
    backend.break_lease("of-many/0")
    backend.ping()  # by then the change has been told
    backend.release(granted(backend, "of-many/3"))
    asked.clear()
    backend.release(granted(backend, "of-many/3"))
    assert asked == ["Create2", "Delete"]


def test_followers_are_told_the_record_by_the_request_that_watches_again(clients: Clients, asked: list[str]) -> None:
    """One request for each follower and change."""
    backend = clients()
    topic, done = Topic("markers", "site"), record(token=7)
    backend.claim("site", Claim(7, mint()))
    watches = [clients().watch() for _ in range(5)]
    for watch in watches:
        watch.add(topic)
    asked.clear()
    backend.put_marker("site", done, 7)
    for watch in watches:
        assert woken(watch, topic)
        assert watch.news(topic).record == done
    assert sorted(asked) == sorted(["Sync", "GetData", "GetData", "Transaction"] + ["GetData"] * len(watches))
    for watch in watches:
        watch.close()


@pytest.mark.parametrize("count", [400])
def test_many_abandoned_leases_are_given_back_at_once(clients: Clients, operator: KazooClient, count: int) -> None:
    """The connection's own thread asks for all of it, and may not wait for itself."""
    backend = clients()
    grants = [granted(backend, f"many/{number}", ttl=10.0) for number in range(count)]

    def left() -> int:
        nodes = 0
        for name in operator.get_children("/"):
            with contextlib.suppress(KeyError):
                nodes += len(operator.get_children(f"/{name}"))
        return nodes

    assert left() == count
    backend.renew(grants)  # so that all of them end together
    eventually(lambda: left() == 0, what="the removal of what nobody renews")
    backend.ping()
