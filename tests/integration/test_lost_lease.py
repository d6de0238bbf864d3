"""The lease is lost in the middle of a step: descendants dead, nothing written, back to campaigning. On Redis."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coordinate import Plan, Step, connect
from coordinate.errors import BackendUnavailable
from coordinate.steps import Event, Outcome, StepContext, run
from coordinate.testing import eventually
from coordinate.types import MarkerState
from tests.servers import RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TTL = 3.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a running server."""
    with redis_server(tmp_path) as server:
        yield server


def delete_key(server: RedisServer) -> None:
    """Delete the lease's keys behind its back."""
    client = server.client()
    for key in client.scan_iter("*lease*"):
        client.delete(key)
    client.close()


def flush(server: RedisServer) -> None:
    """Delete everything."""
    client = server.client()
    client.flushall()
    client.close()


def pause(server: RedisServer) -> None:
    """Stop the server; it goes on when the loss was noticed, see below."""
    server.pause()


@pytest.mark.parametrize("fault", [delete_key, flush, pause])
def test_a_lost_lease_stops_the_step_and_the_work_is_done_again(
    server: RedisServer, tmp_path: Path, fault: Callable[[RedisServer], None]
) -> None:
    """Whatever took the lease, its descendants are dead when the loss is told; its attempt leaves no end."""
    beat, tokens, lost_at = tmp_path / "beat", [], []
    script = f"setsid sh -c 'while :; do date +%s.%N >> {beat}; sleep 0.02; done' & sleep 300"

    def work(context: StepContext) -> None:
        tokens.append(context.lease.token)
        if not lost_at:
            context.run(["sh", "-c", script])

    def observe(event: Event) -> None:
        if event.kind == "lost":
            lost_at.append(time.time())
            server.resume()

    plan = Plan("site", "r1", [Step("migrate", work)])
    with connect(server.url, ttl=TTL) as coordinator, ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, plan, coordinator, timeout=60, observer=observe)
        eventually(beat.exists, within=30, what="the step")
        fault(server)
        assert running.result(timeout=60) is Outcome.RAN
        record = coordinator.markers("site").view().find("migrate", "r1")
    assert record is not None
    assert record.state is MarkerState.DONE
    assert record.failures == 0
    assert tokens == sorted(set(tokens))
    assert len(tokens) >= 2
    assert float(beat.read_text().split()[-1]) < lost_at[-1]


def test_an_unreachable_server_is_an_error_and_never_somebody_else(tmp_path: Path) -> None:
    """At the deadline it is BackendUnavailable that arrives, for leases and for plans."""
    del tmp_path
    with connect("redis://127.0.0.1:1/0", ttl=TTL) as coordinator:
        with pytest.raises(BackendUnavailable):
            coordinator.lease("x").try_acquire()
        with pytest.raises(BackendUnavailable):
            coordinator.lease("x").acquire(timeout=0.5)
        with pytest.raises(BackendUnavailable):
            run(Plan("site", "r1", [Step("s", lambda _: None)]), coordinator, timeout=0.5)


def test_waiters_survive_a_restart_of_the_server(server: RedisServer) -> None:
    """The channel is opened again; the lease is granted by the new server."""
    with connect(server.url, ttl=TTL) as first, connect(server.url, ttl=TTL) as second, ThreadPoolExecutor(1) as pool:
        lease = first.lease("x").acquire()
        waiting = pool.submit(second.lease("x").acquire, 60.0)
        time.sleep(0.2)
        server.restart()
        lease.abandon()
        assert waiting.result(timeout=60).held


def test_a_crashed_holder_is_replaced_when_its_ttl_ends(server: RedisServer) -> None:
    """The waiter looks at the expiry, not at some polling interval: a look, one from the line, one after the end."""
    with connect(server.url, ttl=TTL) as first, connect(server.url, ttl=TTL) as second:
        lease = first.lease("x").acquire()
        lease.abandon()
        asked = []
        ask = second.backend.acquire

        def counted(*args: object, **options: object) -> object:
            asked.append(second.clock.now())
            return ask(*args, **options)

        second.backend.acquire = counted
        record = second.lease("x").holder()
        assert record is not None
        expires = second.clock.now() + record.remaining
        second.lease("x").acquire(timeout=60)
    # One more where the clocks round differently. A poll once a second would make two more, and a busy machine none.
    assert len(asked) <= 4
    assert asked[-1] >= expires - 0.01


def test_blocked_waiters_cost_the_server_nothing(server: RedisServer) -> None:
    """Twenty waiters, not one command while nothing happens within the ttl."""
    client = server.client()
    with connect(server.url, ttl=600) as first, ThreadPoolExecutor(20) as pool:
        first.lease("x").acquire()
        second = connect(server.url, ttl=600)
        waits = [pool.submit(second.lease("x").acquire, 600.0) for _ in range(20)]
        eventually(lambda: client.zcard(next(client.scan_iter("*queue*"), "none")) == 20, what="the queue")
        before = int(client.info("stats")["total_commands_processed"])
        time.sleep(1.5)
        after = int(client.info("stats")["total_commands_processed"])
        second.interrupt(signal.SIGTERM)
        for waiting in waits:
            waiting.exception(timeout=60)
        second.close()
    client.close()
    assert after - before <= 2
