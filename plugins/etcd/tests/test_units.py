"""What no real ensemble does on demand: a deposed leader that answers, foreign data; and how etcd3 is loaded."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from coordinate.backend import StoreSettings
from coordinate.errors import BackendUnavailable, CorruptRecord
from coordinate.testing import FakeClock
from coordinate.url import parse
from coordinate_etcd import messages
from coordinate_etcd.backend import EtcdBackend
from coordinate_etcd.ensemble import Reply
from coordinate_etcd.keys import Keys, after
from coordinate_etcd.sessions import Note, Sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stacks.etcd import Etcd


class Answers:
    """An ensemble whose keepalives and reads are of terms that the test sets."""

    url = parse("etcd://nowhere")

    def __init__(self, *terms: tuple[int, int]) -> None:
        self.terms = list(terms)
        self.beats = 0

    def call(self, what: str, method: str, request: object) -> Reply:
        """Answer a grant, a keepalive, or the read after it."""
        del what, request
        if method == "LeaseGrant":
            return Reply(SimpleNamespace(ID=5, TTL=4), repeated=False)
        beat, read = self.terms[0]
        if method == "LeaseKeepAlive":
            self.beats += 1
            return Reply(SimpleNamespace(TTL=4, header=SimpleNamespace(raft_term=beat)), repeated=False)
        self.terms.pop(0)
        return Reply(SimpleNamespace(header=SimpleNamespace(raft_term=read)), repeated=False)


def sessions(answers: Answers, clock: FakeClock) -> Sessions:
    """Return the server leases of a client of these answers."""
    return Sessions(answers, clock, messages.transaction(), lambda: None)  # type: ignore[arg-type]


def test_a_keepalive_of_a_deposed_leader_does_not_count() -> None:
    """It was answered in term 3, but the ensemble is in term 4: ask again."""
    answers, clock = Answers((3, 4), (4, 4)), FakeClock()
    alive, _ = sessions(answers, clock).extend("renew", {5}, messages.transaction())
    assert alive == {5}
    assert answers.beats == 2


def test_leaders_that_change_all_the_time_are_an_outage() -> None:
    """Nobody can say which keepalive counts."""
    answers = Answers(*[(term, term + 1) for term in range(10)])
    with pytest.raises(BackendUnavailable, match="leader changed"):
        sessions(answers, FakeClock()).extend("renew", {5}, messages.transaction())


def test_a_server_lease_is_used_without_asking_while_it_is_sure_to_last() -> None:
    """For a lease of 3.5 s one of 4 s serves for half a second; then a keepalive comes first."""
    answers, clock = Answers((1, 1)), FakeClock()
    tried = sessions(answers, clock)
    session = tried.fit("acquire", 3.5)
    clock.advance(0.5)
    assert tried.fit("acquire", 3.5) is session
    assert answers.beats == 0
    clock.advance(0.25)
    assert tried.fit("acquire", 3.5) is session
    assert answers.beats == 1
    assert session.until == pytest.approx(clock.now() + 4)


def test_only_what_is_believed_in_stays() -> None:
    """A key is stale when its time is over, and not before."""
    clock = FakeClock()
    tried = sessions(Answers(), clock)
    tried.note(b"old", "a", Note(5, clock.now() + 1, 7))
    tried.note(b"new", "b", Note(5, clock.now() + 3, 8))
    assert tried.stale() == []
    clock.advance(2)
    assert [key for key, _, _ in tried.stale()] == [b"old"]


def test_no_key_of_one_name_is_among_those_of_another() -> None:
    """Names that are beginnings of each other, with all characters that names may have."""
    keys = Keys("/p/n/")
    names = ["a", "a/b", "a.b", "a-b", "a_b", "A", "ab", "a/b/c"]
    for name in names:
        line = keys.line(name)
        inside = [other for other in names if line <= keys.place(other, "x") < after(line)]
        assert inside == [name]
        start = keys.markers(name)
        assert [other for other in names if start <= keys.marker(other, "s:/", "r") < after(start)] == [name]
    assert keys.scope_of(keys.marker("a/b", "s", "r")) == "a/b"
    assert keys.scope_of(keys.bell("a")) is None


def test_foreign_data_is_corrupt_not_held(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """Somebody else wrote to our keys."""
    client = opened(emptied.url)
    emptied.control("put", "/t/leases/foreign", "hello")
    with pytest.raises(CorruptRecord):
        client.holder("foreign")
    emptied.control("put", "/t/base", "many")
    with pytest.raises(CorruptRecord):
        client.break_lease("other")
    assert client.leases() == []


def test_every_open_has_its_prefix() -> None:
    """Path and namespace, and default port and host."""
    backend = EtcdBackend.open(parse("etcd://b,a:1/apps/x"), StoreSettings("ns"))
    assert backend.store_id == "etcd:a:1,b:2379/apps/x/ns"
    assert EtcdBackend.open(parse("etcd://"), StoreSettings("ns")).store_id == "etcd:127.0.0.1:2379/ns"


def test_the_default_descriptor_pool_stays_clean() -> None:
    """Another etcd client of this process registers the same names there."""
    program = (
        "from coordinate_etcd.loader import load; etcd = load(); assert load() is etcd;"
        "import etcd3; assert etcd3.etcdrpc is etcd;"
        "from google.protobuf import descriptor_pool;"
        "pool = descriptor_pool.Default()\n"
        "try: pool.FindFileByName('rpc.proto')\n"
        "except KeyError: print('clean', etcd.RangeRequest(key=b'x').SerializeToString())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("clean b'\\n\\x01x'\n", "")
