"""What the store does when members, clients and replies are lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.servers import proxy

from coordinate import connect
from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from coordinate.testing.kit import record
from coordinate.testing.lease_port import granted
from coordinate.types import Claim, Gone, Granted, Held, LossReason, Renewed, Topic, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stacks.etcd import Etcd, Member

    from coordinate_etcd.backend import EtcdBackend

MEMBER = str(Path(__file__).with_name("member.py"))
OWNER = mint("the-only-one")


class Process:
    """One more process with a client."""

    def __init__(self, url: str, task: str, subject: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, MEMBER, url, task, subject],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> object:
        """Wait for its next word."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def process() -> Iterator[Callable[[str, str, str], Process]]:
    """Start processes; end them."""
    started: list[Process] = []

    def start(url: str, task: str, subject: str) -> Process:
        started.append(Process(url, task, subject))
        return started[-1]

    yield start
    for one in started:
        one.close()


def strike(member: Member, how: str) -> None:
    """Take a member out: dead, or hung with its connections open."""
    if how == "killed":
        member.kill()
    else:
        member.signal(signal.SIGSTOP)


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_holder_keeps_its_lease_while_the_leader_is_lost(three: Etcd, how: str) -> None:
    """The others elect a new one; the lease is renewed there, and handed over from there to who waited all along."""
    with connect(three.url, ttl=6) as ours, connect(three.url, ttl=6) as theirs:
        lease, next_one = ours.lease("kept"), theirs.lease("kept")
        lease.acquire(30)
        with next_one.contest(timeout=60) as contest:
            assert not contest.attempt()
            contest.attempt()
            strike(three.leader(), how)
            began = time.monotonic()
            while time.monotonic() - began < 8:
                lease.check()
                assert not contest.attempt()
                time.sleep(0.1)
            assert lease.release()
            while not contest.attempt():
                contest.sleep()
        next_one.check()
        assert next_one.token > 0


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_dead_holder_is_replaced_while_the_leader_is_lost(
    three: Etcd, how: str, process: Callable[[str, str, str], Process]
) -> None:
    """Both die at once: the new leader gives the lease its length again, and then it is free."""
    holder = process(three.url, "hold", "orphaned")
    token = holder.answer()
    waiter = process(three.url, "wait", "orphaned")
    assert waiter.answer() == "waiting"
    leader = three.leader()
    holder.close()
    began = time.monotonic()
    strike(leader, how)
    later = waiter.answer()
    assert time.monotonic() - began <= 2 * 3 + 2.5
    assert isinstance(token, int)
    assert isinstance(later, int)
    assert later > token


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_watch_misses_nothing_when_its_member_is_lost(
    three: Etcd, opened: Callable[..., EtcdBackend], how: str
) -> None:
    """It goes on at another member from where it was."""
    watcher, writer = opened(three.url), opened(three.url)
    watch = watcher.watch()
    scopes = [Topic("markers", f"site/{number}") for number in range(20)]
    for topic in scopes:
        watch.add(topic)
    seen: set[Topic] = set()
    for number, topic in enumerate(scopes):
        if number == 5:
            strike(three.members[0], how)  # the first endpoint, so the one that is watched
        eventually(lambda topic=topic: claimed(writer, topic.name), what="a claim")
        seen |= watch.drain()
    eventually(lambda: not seen.update(watch.drain()) and seen >= set(scopes), what="all changes")
    watch.close()


def claimed(backend: EtcdBackend, scope: str) -> bool:
    """Register a leader; False: ask again."""
    try:
        backend.claim(scope, Claim(1, OWNER))
    except BackendUnavailable:
        return False
    return True


def test_a_waiter_that_dies_in_line_holds_up_nobody(emptied: Etcd, process: Callable[[str, str, str], Process]) -> None:
    """Those behind it wait for the one before it; the lease is handed over before anything expires."""
    with connect(emptied.url, ttl=60) as ours:
        lease = ours.lease("queue")
        lease.acquire(30)
        dead, patient = process(emptied.url, "wait", "queue"), process(emptied.url, "wait", "queue")
        assert (dead.answer(), patient.answer()) == ("waiting", "waiting")
        line = "/coordinate/queue/queue:"
        eventually(lambda: len(emptied.control("get", line, "--prefix", "--keys-only").stdout.split()) == 2)
        dead.close()
        lease.release()
        later = patient.answer()
        assert isinstance(later, int)
        assert later > 0


def test_a_server_lease_that_is_gone_is_a_lost_lease(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """Revoked behind our back: the renewal says so, and the next grant uses a new one."""
    client = opened(emptied.url)
    grant = granted(client, "revoked")
    (number,) = emptied.control("lease", "list").stdout.split()[-1:]
    emptied.control("lease", "revoke", number)
    assert client.renew([grant]) == [Gone(LossReason.EXPIRED)]
    again = granted(client, "revoked")
    assert again.token > grant.token
    assert isinstance(client.renew([again])[0], Renewed)


def test_a_revoked_server_lease_does_not_fail_the_next_acquire(
    emptied: Etcd, opened: Callable[..., EtcdBackend]
) -> None:
    """The client believes in it still; the transaction says no, and a new one is made."""
    client, other = opened(emptied.url), opened(emptied.url)
    client.release(granted(client, "first"))
    (number,) = emptied.control("lease", "list").stdout.split()[-1:]
    emptied.control("lease", "revoke", number)
    granted(client, "second")
    watch, owner = other.watch(), mint()
    assert isinstance(other.acquire("second", owner, 30, queue=watch), Held)
    watch.close()


def test_what_a_holder_no_longer_renews_does_not_live_on_its_neighbours_renewals(
    emptied: Etcd, opened: Callable[..., EtcdBackend]
) -> None:
    """Both hang on one server lease, and only one of them is believed in."""
    client, other = opened(emptied.url), opened(emptied.url)
    granted(client, "abandoned", ttl=1.5)
    kept = granted(client, "kept", ttl=1.5)
    answers = []

    def free() -> bool:
        answers.append(client.renew([kept])[0])
        return isinstance(other.acquire("abandoned", mint(), 30), Granted)

    eventually(free, what="the abandoned lease's end")
    assert {type(answer) for answer in answers} == {Renewed}
    assert isinstance(other.acquire("kept", mint(), 30), Held)


def test_what_nobody_renews_ends_while_its_process_waits(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """A process that only waits keeps its server lease for its place in line, not for what it gave up."""
    client = opened(emptied.url)
    granted(client, "given-up", ttl=1.5)
    watch, owner = client.watch(), mint()
    eventually(lambda: isinstance(client.acquire("given-up", owner, 1.5, queue=watch), Granted), what="its end")
    watch.close()


def test_an_operation_has_one_time_for_all_its_requests(
    emptied: Etcd, opened: Callable[..., EtcdBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a renewal needs: the core's deadlines rest on it."""
    client = opened(emptied.url, timeout=4.0)
    grant = granted(client, "slow")
    real, left = client._ensemble._once, []
    monkeypatch.setattr(client._ensemble, "_once", lambda *call: left.append(call[3]) or time.sleep(0.3) or real(*call))
    assert isinstance(client.renew([grant])[0], Renewed)
    assert len(left) == 2
    assert left[1] < left[0] - 0.25
    assert isinstance(client.renew([grant])[0], Renewed)
    assert left[2] > left[1]


def test_many_leases_are_renewed_with_two_requests(
    emptied: Etcd, opened: Callable[..., EtcdBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many, and a lost one is found among them."""
    client = opened(emptied.url)
    grants = [granted(client, f"many/{number:03}") for number in range(150)]
    client.release(grants[70])
    methods: list[str] = []
    real = client._ensemble.call
    monkeypatch.setattr(
        client._ensemble, "call", lambda what, method, request: methods.append(method) or real(what, method, request)
    )
    answers = client.renew(grants)
    assert [number for number, answer in enumerate(answers) if not isinstance(answer, Renewed)] == [70]
    # The lost one's revision was forgotten with its release: one request looks for it, one asks why it is gone.
    assert methods == ["Txn", "LeaseKeepAlive", "Txn", "Txn"]


def test_lost_replies_change_nothing(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """Every operation whose reply is lost is repeated on another endpoint and has the same outcome."""
    direct = opened(emptied.url)
    calls: list[tuple[str, Callable[[EtcdBackend], object], object]] = []
    owner, queued = mint(), mint()
    held = granted(direct, "held")
    grants: list[Granted] = []

    def acquire(client: EtcdBackend) -> object:
        answer = client.acquire("lost", owner, 30)
        assert isinstance(answer, Granted)
        grants.append(answer)
        return type(answer)

    calls = [
        ("acquire", acquire, Granted),
        ("queue", lambda client: type(client.acquire("held", queued, 30, queue=client.watch())), Held),
        ("renew", lambda client: [type(answer) for answer in client.renew([grants[0].grant])], [Renewed]),
        ("claim", lambda client: client.claim("site", Claim(7, OWNER)), None),
        ("put", lambda client: client.put_marker("site", record(token=7), 7), None),
        ("delete", lambda client: client.delete_marker("site", "migrate", "r1"), True),
        ("release", lambda client: client.release(grants[0].grant), True),
    ]
    for name, operation, expected in calls:
        with proxy(emptied.members[0].port) as between:
            client = opened(f"etcd://127.0.0.1:{between.port},{emptied.members[0].address}", timeout=2.5)
            client.ping()
            between.swallow_replies = True
            assert operation(client) == expected, name
    assert direct.holder("lost") is None
    assert direct.markers("site").records == ()
    assert direct.release(held)


def test_a_grant_that_nobody_heard_of_is_let_go(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """Its reply is lost and nobody asks again: it ends although its process goes on renewing others."""
    other = opened(emptied.url)
    with proxy(emptied.members[0].port) as between:
        client = opened(f"etcd://127.0.0.1:{between.port}", timeout=0.8)
        granted(client, "warm", ttl=1.5)
        between.swallow_replies = True
        with pytest.raises(BackendUnavailable, match="may have happened"):
            client.acquire("unheard", mint(), 1.5)
    assert other.holder("unheard") is not None
    eventually(lambda: other.holder("unheard") is None, what="its end")


def test_tokens_grow_over_a_wiped_ensemble(tmp_path: Path, opened: Callable[..., EtcdBackend]) -> None:
    """The marker store's floor is all that is left; later grants need none."""
    from tests.stacks.etcd import etcd

    with etcd(tmp_path) as ensemble:
        client = opened(ensemble.url)
        for _ in range(30):
            grant = granted(client, "site")
            client.release(grant)
        ensemble.wipe()
        eventually(lambda: alive(client), what="the connection")
        first = granted(client, "site", floor=grant.token)
        assert first.token > grant.token
        assert client.release(first)
        later = granted(opened(ensemble.url), "site")
        assert later.token > first.token
        assert client.break_lease("site") > later.token
        assert granted(client, "site").token > later.token + 1


def alive(client: EtcdBackend) -> bool:
    """Return whether the ensemble answers."""
    try:
        client.ping()
    except BackendUnavailable:
        return False
    return True


def test_an_unanswered_renewal_is_unknown(tmp_path: Path, opened: Callable[..., EtcdBackend]) -> None:
    """Also in an outage, nothing is raised, and afterwards the lease is still there."""
    from tests.stacks.etcd import etcd

    with etcd(tmp_path) as ensemble:
        client = opened(ensemble.url, timeout=1.0)
        grant = granted(client, "outage")
        ensemble.members[0].signal(signal.SIGSTOP)
        assert isinstance(client.renew([grant])[0], Unknown)
        with pytest.raises(BackendUnavailable, match="asking again is safe"):
            client.acquire("other", mint(), 30)
        ensemble.members[0].signal(signal.SIGCONT)
        eventually(lambda: isinstance(client.renew([grant])[0], Renewed), what="the renewal")


def test_an_idle_client_costs_nothing_in_an_outage_and_prints_nothing(
    tmp_path: Path, opened: Callable[..., EtcdBackend], process: Callable[[str, str, str], Process]
) -> None:
    """It holds a lease and waits for another while its ensemble is dead: two percent of a core, no word on stderr."""
    from tests.stacks.etcd import etcd

    with etcd(tmp_path) as ensemble:
        holder = opened(ensemble.url)
        holder.acquire("taken", mint(), 60)
        idle = process(ensemble.url, "idle", "6")
        time.sleep(1.5)
        ensemble.members[0].kill()
        assert idle.process.stdin is not None
        idle.process.stdin.write("\n")
        idle.process.stdin.flush()
        share = idle.answer()
        assert isinstance(share, float)
        assert share < 0.02
        output, errors = idle.process.communicate("")
        assert (output, errors) == ("", "")


def test_a_forked_child_is_told_to_open_its_own(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """GRPC does not survive a fork; the parent's connection does."""
    client = opened(emptied.url)
    client.ping()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            client.ping()
        except BackendUnavailable as error:
            code = 0 if "forked" in str(error) else 2
        finally:
            client.close()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.ping()
