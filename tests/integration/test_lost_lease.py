"""The lease is lost in the middle of a step: descendants dead, nothing written, back to campaigning. On Redis."""

from __future__ import annotations

import signal
import threading
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
    from collections.abc import Iterator
    from pathlib import Path

TTL = 1.5


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
    """Stop the server for longer than the ttl."""
    server.pause()
    threading.Timer(2 * TTL, server.resume).start()


@pytest.mark.parametrize("fault", [delete_key, flush, pause])
def test_a_lost_lease_stops_the_step_and_the_work_is_done_again(
    server: RedisServer, tmp_path: Path, fault: object
) -> None:
    """Whatever took the lease, its descendants are dead by the deadline and its attempt leaves no record of an end."""
    assert callable(fault)
    beat, deadlines, lines = tmp_path / "beat", [], []
    script = f"setsid sh -c 'while :; do date +%s.%N >> {beat}; sleep 0.02; done' & sleep 60"

    def work(context: StepContext) -> None:
        deadlines.append(lambda: context.lease.deadline)
        if len(deadlines) == 1:
            context.run(["sh", "-c", script])

    def observe(event: Event) -> None:
        lines.append((time.time(), event))

    plan = Plan("site", "r1", [Step("migrate", work)])
    with connect(server.url, ttl=TTL) as coordinator, ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, plan, coordinator, timeout=30, observer=observe)
        eventually(beat.exists, within=10, what="the step")
        struck = time.time()
        fault(server)
        assert running.result(timeout=30) is Outcome.RAN
        record = coordinator.markers("site").view().find("migrate", "r1")
    assert record is not None
    assert record.state is MarkerState.DONE
    assert record.failures == 0
    assert "lost" in [event.kind for _, event in lines]
    last_beat = float(beat.read_text().split()[-1])
    assert last_beat < struck + TTL + 0.25
    second = next(at for at, event in lines if event.kind == "leading" and at > struck)
    assert last_beat < second


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
        waiting = pool.submit(second.lease("x").acquire, 20.0)
        time.sleep(0.2)
        server.restart()
        lease.abandon()
        assert waiting.result(timeout=20).held


def test_a_crashed_holder_is_replaced_when_its_ttl_ends(server: RedisServer) -> None:
    """The waiter looks at the very instant, not at a polling interval."""
    with connect(server.url, ttl=TTL) as first, connect(server.url, ttl=TTL) as second:
        lease = first.lease("x").acquire()
        lease.abandon()
        record = second.lease("x").holder()
        assert record is not None
        expires = time.monotonic() + record.remaining
        second.lease("x").acquire(timeout=10)
        assert time.monotonic() - expires < 0.15


def test_blocked_waiters_cost_the_server_nothing(server: RedisServer) -> None:
    """Twenty waiters, not one command while nothing happens within the ttl."""
    client = server.client()
    with connect(server.url, ttl=30) as first, ThreadPoolExecutor(20) as pool:
        first.lease("x").acquire()
        second = connect(server.url, ttl=30)
        waits = [pool.submit(second.lease("x").acquire, 60.0) for _ in range(20)]
        eventually(lambda: client.zcard(next(client.scan_iter("*queue*"), "none")) == 20, what="the queue")
        before = int(client.info("stats")["total_commands_processed"])
        time.sleep(1.5)
        after = int(client.info("stats")["total_commands_processed"])
        second.interrupt(signal.SIGTERM)
        for waiting in waits:
            waiting.exception(timeout=10)
        second.close()
    client.close()
    assert after - before <= 2
