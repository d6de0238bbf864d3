"""Which slot a key is in, and what the servers of a Cluster say about it."""

from __future__ import annotations

import pytest

from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.backends.redis.slots import SLOTS, Range, SlotMap, parse, slot_of, tag_in
from coordinate.errors import ConfigError
from coordinate.url import parse as parse_url

A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 12739),
        (b"foo", 12182),
        (b"ns:{foo}:lease", 12182),
        (b"{foo}{bar}", 12182),
        (b"", 0),
    ],
)
def test_a_key_is_in_the_slot_of_its_tag(key: bytes, slot: int) -> None:
    """As servers compute it: the first non-empty pair of braces counts, an empty one does not."""
    assert slot_of(key) == slot


def test_an_empty_tag_is_no_tag() -> None:
    """The whole key counts then, and also where a brace is not closed."""
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"{foo") != slot_of(b"foo")


@pytest.mark.parametrize("slot", [0, 1, 5460, 5461, 12182, SLOTS - 1])
def test_every_slot_has_a_tag(slot: int) -> None:
    """Always the same one: all processes have to agree where a server's record is."""
    tag = tag_in(slot)
    assert slot_of(f"ns:{{{tag}}}:incarnation".encode()) == slot
    tag_in.cache_clear()
    assert tag_in(slot) == tag


def test_a_map_names_the_owner_of_each_slot() -> None:
    """Also where nobody serves a slot."""
    slots = SlotMap([Range(10, 20, "h", 1, A), Range(0, 9, "h", 2, B)])
    assert [found.identity if (found := slots.find(slot)) else "" for slot in (0, 9, 10, 20, 21)] == [B, B, A, A, ""]
    assert (slots.edges(A), slots.edges(B), slots.edges("c")) == ((10, 20), (0, 9), ())
    assert SlotMap([Range(7, 7, "h", 1, A)]).edges(A) == (7,)
    assert SlotMap([]).find(0) is None


def test_owners_do_not_depend_on_how_an_answer_is_cut() -> None:
    """Else every other server that is asked would look like a change, and break all waits."""
    whole = SlotMap([Range(0, 9, "h", 1, A)])
    cut = SlotMap([Range(0, 4, "h", 1, A), Range(5, 9, "h", 1, A)])
    assert whole.owners() == cut.owners()
    assert whole.owners() != SlotMap([Range(0, 9, "h", 1, B)]).owners()


def test_servers_name_themselves_in_several_ways() -> None:
    """By address, host name, not at all, or as unknown; later versions add more."""
    id_ = A.encode()
    rows = [[5, 9, [b"", 7001, id_]], [0, 4, [b"10.0.0.1", 7000, id_, [b"hostname", b"x"]], [b"replica", 1, id_]]]
    assert parse(rows) == [Range(0, 4, "10.0.0.1", 7000, A), Range(5, 9, "", 7001, A)]
    assert parse([[0, 1, [None, 7000, id_]], [2, 3, [b"?", 7000, id_]]])[1].host == ""


@pytest.mark.parametrize("reply", [None, 5, [[1]], [[0, 1, b"x"]], [[0, 1, [b"h", 1]]], [[0, 1, [b"h", 1, None]]]])
def test_an_answer_that_is_no_map_is_refused(reply: object) -> None:
    """Whatever answers there is no Cluster."""
    with pytest.raises(ValueError, match="CLUSTER SLOTS"):
        parse(reply)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/1", "/x", "/0/1"])
def test_a_cluster_has_no_other_databases(path: str) -> None:
    """Said when the store is opened."""
    with pytest.raises(ConfigError, match="database 0"):
        opened(f"redis+cluster://h{path}")


def test_the_order_of_hosts_does_not_matter() -> None:
    """Members of one fleet, some of which list the servers in another order, share one store."""
    one, other = opened("redis+cluster://A:7000,b,[::1]:1/0"), opened("redis+cluster://[::1]:1,b:6379,a:7000")
    assert one.store_id == other.store_id
    assert one.store_id != opened("redis+cluster://a:7000,b").store_id


def opened(url: str) -> RedisBackend:
    """Return a backend, not connected."""
    return RedisBackend.open(parse_url(url), StoreSettings("t"))
