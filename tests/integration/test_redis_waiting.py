"""Waiting on Redis: in turn, at no cost, and past those who died in the line."""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing.lease_port import granted
from coordinate.testing.watch_port import woken
from coordinate.types import Granted, Held, Owner, Topic
from tests.servers import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from coordinate.backends.redis import RedisBackend
    from coordinate.backends.redis.watch import RedisWatch
    from tests.servers import RedisServer

WAITER = """
import sys, time
from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.url import parse
backend = RedisBackend.open(parse(sys.argv[1]), StoreSettings("t"))
watch = backend.watch()
answer = backend.acquire("job", mint(), 30, queue=watch)
print(type(answer).__name__, flush=True)
sys.stdin.read()
"""


class Waiter(NamedTuple):
    """One process's worth of waiting."""

    backend: RedisBackend
    watch: RedisWatch
    owner: Owner

    @property
    def topic(self) -> Topic:
        """Return what it is woken for."""
        return Topic("lease", "job", self.owner.nonce)

    def ask(self) -> Granted | Held:
        """Ask for the lease, and stand in line."""
        answer = self.backend.acquire("job", self.owner, 30, queue=self.watch)
        assert isinstance(answer, Granted | Held)
        return answer


@pytest.fixture
def waiter(shared: RedisServer, admin: redis.Redis) -> Iterator[Callable[[], Waiter]]:
    """Return a function that opens one more waiter and puts it into the line."""
    del admin
    made: list[Waiter] = []

    def make() -> Waiter:
        backend = opened(shared.url)
        made.append(Waiter(backend, backend.watch(), mint()))
        assert isinstance(made[-1].ask(), Held)
        return made[-1]

    yield make
    for each in made:
        each.watch.close()
        each.backend.close()


def test_waiters_are_woken_one_by_one_in_order_of_arrival(backend: RedisBackend, waiter: Callable[[], Waiter]) -> None:
    """Each release wakes exactly one; a repeated attempt keeps its place."""
    grant = granted(backend, "job")
    line = [waiter() for _ in range(5)]
    line[0].ask()
    holder = backend
    for number, next_one in enumerate(line):
        assert holder.release(grant)
        assert woken(next_one.watch, next_one.topic)
        assert not any(later.watch.drain() for later in line[number + 1 :])
        answer = next_one.ask()
        assert isinstance(answer, Granted)
        holder, grant = next_one.backend, answer.grant


def test_a_killed_process_in_the_line_is_skipped(
    shared: RedisServer, backend: RedisBackend, waiter: Callable[[], Waiter]
) -> None:
    """The release goes past it to the next one at once."""
    grant = granted(backend, "job")
    with subprocess.Popen(
        [sys.executable, "-c", WAITER, shared.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"Held\n"
        second = waiter()
        process.kill()
        process.wait(10)
        with shared.client() as client:
            channels = client.pubsub_channels
            while len(channels("t:w:*")) > 1:  # until the server has seen the end of the connection
                client.ping()
    assert backend.release(grant)
    assert woken(second.watch, second.topic)


def test_a_watch_that_closes_with_a_turn_in_it_hands_it_on(backend: RedisBackend, waiter: Callable[[], Waiter]) -> None:
    """Whether the turn was read already or still lay in the socket."""
    grant = granted(backend, "job")
    first, second = waiter(), waiter()
    assert backend.release(grant)
    first.watch.close()
    assert woken(second.watch, second.topic)


def test_a_granted_newcomer_leaves_no_trace_in_the_line(
    backend: RedisBackend, admin: redis.Redis, waiter: Callable[[], Waiter]
) -> None:
    """Granted and withdrawn owners are gone from the line, and what is left expires."""
    granted(backend, "job")
    first, second = waiter(), waiter()
    assert admin.pttl("t:{l:job}:queue") >= 60_000
    assert admin.pttl("t:{l:job}:waiters") >= 60_000
    second.backend.withdraw("job", second.owner)
    admin.delete("t:{l:job}:lease")  # as if it had expired: nobody is woken
    assert isinstance(first.backend.acquire("job", first.owner, 30), Granted)
    assert admin.keys("t:{l:job}:[qw]*") == []


def test_blocked_waiters_send_no_commands(
    backend: RedisBackend, admin: redis.Redis, waiter: Callable[[], Waiter]
) -> None:
    """While nothing happens, the server has nothing to do for sixteen of them."""
    granted(backend, "job")
    watches = [waiter().watch for _ in range(16)]
    before = admin.info("stats")["total_commands_processed"]
    assert select.select(watches, [], [], 0.5)[0] == []
    after = admin.info("stats")["total_commands_processed"]
    assert after - before == 1, "only the first INFO itself"


def test_one_connection_serves_all_topics_of_a_process(backend: RedisBackend, admin: redis.Redis) -> None:
    """A hundred scopes and a lease, and all messages of one packet are reported by one drain."""
    watch = backend.watch()
    topics = {Topic("markers", f"scope/{number}") for number in range(100)}
    for topic in topics:
        watch.add(topic)
    assert len(admin.client_list(_type="pubsub")) == 1
    with admin.pipeline(transaction=True) as pipe:
        for topic in topics:
            pipe.publish(f"t:{{m:{topic.name}}}:changed", "x")
        pipe.execute()
    seen: set[Topic] = set()
    while seen != topics:
        assert select.select([watch], [], [], 5)[0], f"{len(topics - seen)} topics are missing"
        seen |= watch.drain()
    watch.close()


def test_a_message_that_arrives_while_a_topic_is_added_is_kept(backend: RedisBackend) -> None:
    """add() reads past it to the confirmation; the next drain has it."""
    watch = backend.watch()
    first = Topic("markers", "first")
    watch.add(first)
    backend.notify(first)
    watch.add(Topic("markers", "second"))
    assert woken(watch, first)
    watch.close()


def test_topics_may_be_added_while_another_thread_drains(backend: RedisBackend) -> None:
    """Nothing is lost and nothing blocks for long."""
    watch = backend.watch()
    topics = [Topic("markers", f"scope/{number}") for number in range(50)]
    seen: set[Topic] = set()

    def pump() -> None:
        while len(seen) < len(topics):
            if not select.select([watch], [], [], 5)[0]:
                return
            seen.update(watch.drain())

    thread = threading.Thread(target=pump)
    thread.start()
    for topic in topics:
        watch.add(topic)
        backend.notify(topic)
    # As the core does after add(): what its own reading swallowed is not in the socket any more.
    seen.update(watch.drain())
    backend.notify(topics[0])
    thread.join(10)
    assert seen == set(topics)
    watch.close()


def test_a_cut_connection_is_reported_not_hidden(backend: RedisBackend, admin: redis.Redis) -> None:
    """The descriptor becomes readable, drain raises, and goes on raising: nothing is silently resubscribed."""
    watch = backend.watch()
    (client,) = admin.client_list(_type="pubsub")
    admin.client_kill_filter(_id=client["id"])
    assert select.select([watch], [], [], 5)[0]
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            watch.drain()
    with pytest.raises(BackendUnavailable):
        watch.add(Topic("markers", "site"))
    watch.close()


def test_a_server_without_channel_rights_is_noticed_when_the_watch_opens(
    shared: RedisServer, admin: redis.Redis
) -> None:
    """Not at the first release."""
    admin.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">canary-pw", "~t:*", "+@all")
    backend = opened(f"redis://deaf:canary-pw@127.0.0.1:{shared.port}/0")
    with pytest.raises(BackendUnavailable, match="ACL SETUSER"):
        backend.watch()
    backend.close()
