"""Real Sentinels replace a primary that dies or hangs: what holders, waiters and newcomers notice of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from tests.stacks.sentinel import FAILOVER_WITHIN, SERVICE, Look, sentinel_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from coordinate.lease import Lease
    from tests.servers import RedisServer
    from tests.stacks.sentinel import SentinelStack

TTL = 20.0
"""Seconds: longer than the slowest failover."""
LAG = 1
"""Seconds for which an isolated primary may go on, as the servers are told."""
HOLDER = """
import sys, time
from coordinate import connect

with connect(sys.argv[1], ttl=float(sys.argv[2])) as coordinator:
    lease = coordinator.lease("job").acquire(20)
    while True:
        print(lease.token, lease.deadline, flush=True)
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelStack]:
    """One stack for all tests; each leaves it whole."""
    look = Look(server=("--min-replicas-max-lag", str(LAG)))
    with sentinel_stack(tmp_path_factory.mktemp("sentinel"), look) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _whole(stack: SentinelStack) -> Iterator[None]:
    """Bring back who was hurt, and forget what was stored."""
    with stack.primary.client() as client:
        client.flushall()
    yield
    for server in stack.servers:
        server.resume() if server.running else server.start()
    # A primary that comes back calls itself one for 8 s, until the Sentinels correct it; here it is told at once.
    stack.follow()
    stack.settle()


def kill(stack: SentinelStack) -> RedisServer:
    """End the primary as a crash would."""
    return stack.kill_primary()


def pause(stack: SentinelStack) -> RedisServer:
    """Stop the primary: connections stay open, nothing answers."""
    return stack.pause_primary()


@pytest.mark.parametrize("hurt", [kill, pause])
def test_a_holder_keeps_its_lease_through_a_failover(
    stack: SentinelStack, hurt: Callable[[SentinelStack], RedisServer]
) -> None:
    """Same token, renewed by the successor, checked all the time; a newcomer is told who holds it; then given back."""
    with connect(stack.url, ttl=TTL) as coordinator, connect(stack.url, ttl=TTL) as newcomer:
        lease = coordinator.lease("job").acquire(5)
        old = hurt(stack)
        stack.wait_for_new_primary(old)
        promoted = time.clock_gettime(time.CLOCK_BOOTTIME)
        eventually(lambda: lease.deadline > promoted + TTL * 0.99, within=TTL, what="a renewal by the successor")
        lease.check()
        record = newcomer.lease("job").holder()
        assert record is not None
        assert (record.token, record.owner.nonce) == (lease.token, lease.owner.nonce)
        assert newcomer.lease("job").try_acquire() is False
        assert lease.release() is True
        assert lease.lost is None


def asked(lease: Lease) -> int | None:
    """Return the token of whoever holds the lease; None while nobody can say."""
    try:
        record = lease.holder()
    except BackendUnavailable:
        return None
    return 0 if record is None else record.token


def test_the_old_primary_comes_back_as_a_replica_and_nobody_notices(stack: SentinelStack) -> None:
    """It is demoted under open connections; every answer is right all along, none says that somebody else holds it."""
    with connect(stack.url, ttl=TTL) as coordinator:
        lease = coordinator.lease("job").acquire(5)
        old, answers = stack.primary, []
        with stack.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        with old.client() as client:
            until = time.monotonic() + FAILOVER_WITHIN
            while client.role()[0] == b"master" and time.monotonic() < until:
                answers.append(asked(lease))
                time.sleep(0.005)
            assert client.role()[0] == b"slave"
        eventually(lambda: asked(lease) is not None, within=TTL, what="an answer of the new primary")
        assert set(answers) - {None} == {lease.token} == {asked(lease)}
        assert coordinator.lease("job").try_acquire() is False
        lease.check()
        assert lease.release() is True


def test_who_waits_takes_over_when_holder_and_primary_die_together_and_not_before(stack: SentinelStack) -> None:
    """Not before the dead holder's deadline, not later than two ttl, the failover and an isolated primary's time."""
    ttl = 4.0
    with connect(stack.url, ttl=ttl) as coordinator:
        with subprocess.Popen([sys.executable, "-c", HOLDER, stack.url, str(ttl)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            first = holder.stdout.readline()
            token = int(first.split()[0])
            taken: list[tuple[float, int]] = []

            def wait() -> None:
                lease = coordinator.lease("job").acquire(60)
                taken.append((time.clock_gettime(time.CLOCK_BOOTTIME), lease.token))

            waiter = threading.Thread(target=wait)
            waiter.start()
            with stack.primary.client() as client:
                eventually(lambda: client.exists("coordinate:{l:job}:queue") == 1, what="the waiter's place in line")
            old = stack.kill_primary()
            holder.send_signal(signal.SIGKILL)
            deadline = max(float(line.split()[1]) for line in [first, *holder.stdout.readlines()])
            stack.wait_for_new_primary(old)
            promoted = time.clock_gettime(time.CLOCK_BOOTTIME)
            waiter.join(60)
        ((when, later),) = taken
        assert when >= deadline
        assert when <= promoted + 2 * ttl + LAG + 2
        assert later > token


def test_who_waits_gets_it_at_once_when_it_is_given_back_after_a_failover(stack: SentinelStack) -> None:
    """The waiting channel is opened again on the successor, where the waiter stands in line when quarantine is over."""
    ttl = 9.0
    with connect(stack.url, ttl=ttl) as coordinator, connect(stack.url, ttl=ttl) as other:
        lease = coordinator.lease("job").acquire(5)
        taken = threading.Event()
        waiter = threading.Thread(target=lambda: (other.lease("job").acquire(60), taken.set()))
        waiter.start()
        new = stack.wait_for_new_primary(stack.kill_primary())
        with new.client() as client:
            eventually(lambda: not quarantined(client), within=2 * ttl, what="the end of the quarantine")
            eventually(lambda: listening(client), within=ttl, what="the waiter's place in line")
        lease.check()
        assert lease.release() is True
        assert taken.wait(1)
        waiter.join()


def quarantined(client: redis.Redis) -> bool:
    """Return whether new owners wait, or nobody has looked at this primary yet."""
    seconds, micros = client.time()
    until = client.hget("coordinate:{i}:incarnation", "until")
    return not int(until or 0) or seconds * 10**6 + micros < int(until)


def listening(client: redis.Redis) -> bool:
    """Return whether a waiter stands in line with a channel that somebody listens to."""
    channels = client.hvals("coordinate:{l:job}:waiters")
    return any(count for _, count in client.pubsub_numsub(*channels)) if channels else False
