"""Waking: how soon, how seldom, and what happens where the kernel cannot help."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.types import Capability, Claim, Granted, Held, Topic
from coordinate_filelock import watch as watch_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coordinate_filelock.backend import FileBackend
    from coordinate_filelock.watch import FileWatch

    from .conftest import Worker

    Clients = Callable[[], FileBackend]
    Workers = Callable[[], Worker]


class Waiter:
    """Waits for a lease as the core does: look, sleep until woken or for the interval, look again.

    Without a net it sleeps on where the core would look for itself, so that only a wake-up can end its wait.
    """

    def __init__(self, backend: FileBackend, watch: FileWatch, *, net: bool = True) -> None:
        self.backend, self.watch, self.owner = backend, watch, mint()
        self.attempts = 0
        self._net = net

    def look(self) -> bool:
        """Make one attempt."""
        self.attempts += 1
        answer = self.backend.acquire("x", self.owner, 30, queue=self.watch)
        if isinstance(answer, Granted):
            self.backend.release(answer.grant)
        return isinstance(answer, Granted)

    def wait(self, until: float) -> bool:
        """Wait until granted (True) or out of time."""
        topic = Topic("lease", "x", self.owner.nonce)
        self.watch.drain()
        while not self.look():
            left = until - time.monotonic()
            # The short interval is no net: it follows from a wake-up.
            if self._net or self.watch.poll_interval <= watch_module.INTERVAL_MISSED:
                left = min(left, self.watch.poll_interval)
            woken = time.monotonic() + left
            while (left := woken - time.monotonic()) > 0:
                if select.select([self.watch.fileno()], [], [], left)[0] and topic in self.watch.drain():
                    break
            if time.monotonic() >= until:
                return False
        return True


@pytest.mark.parametrize("how", ["release", "kill"])
def test_a_waiter_is_woken_and_gets_the_lease(backend: FileBackend, worker: Workers, how: str) -> None:
    """By a release and by a death alike; nothing here polls."""
    watch = backend.watch()
    for _ in range(10):
        holder = worker()
        assert holder.ask("acquire", "x")
        waiter = Waiter(backend, watch, net=False)
        assert not waiter.look()
        if how == "kill":
            holder.kill()
        else:
            holder.tell("release", "x")
        assert waiter.wait(time.monotonic() + 60)
        holder.close()
    watch.close()


def test_blocked_waiters_do_not_wake_each_other(backend: FileBackend, client: Clients, worker: Workers) -> None:
    """Failed attempts make no event that anybody reacts to: only the poll interval is left."""
    worker_process = worker()
    worker_process.ask("acquire", "x")
    import threading

    waiters = [Waiter(other, other.watch()) for other in (client(), client(), backend)]
    until = time.monotonic() + 1.0
    threads = [threading.Thread(target=waiter.wait, args=(until,)) for waiter in waiters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for waiter in waiters:
        assert 1 <= waiter.attempts <= 6
        assert waiter.watch.drain() == frozenset()
    for waiter in waiters:
        waiter.watch.close()


def test_after_a_wake_up_that_came_too_early_a_waiter_looks_again_soon_and_once(
    backend: FileBackend, worker: Workers
) -> None:
    """The record's close may be seen an instant before the lock is free."""
    holder = worker()
    holder.ask("acquire", "x")
    watch, owner = backend.watch(), mint()
    topic = Topic("lease", "x", owner.nonce)
    assert isinstance(backend.acquire("x", owner, 30, queue=watch), Held)
    backend.notify(topic)
    assert select.select([watch.fileno()], [], [], 60)[0]
    assert watch.drain() == {topic}
    backend.acquire("x", owner, 30, queue=watch)
    assert watch.poll_interval < 0.02
    backend.acquire("x", owner, 30, queue=watch)
    assert watch.poll_interval == pytest.approx(1.0)
    watch.close()


def test_withdrawing_ends_the_wake_ups(backend: FileBackend, worker: Workers) -> None:
    """Nothing is reported for an owner that left."""
    holder = worker()
    holder.ask("acquire", "x")
    watch, owner = backend.watch(), mint()
    backend.acquire("x", owner, 30, queue=watch)
    backend.withdraw("x", owner)
    holder.ask("release", "x")
    assert watch.drain() == frozenset()
    watch.close()


def test_a_lease_that_is_freed_while_the_waiter_queues_is_not_missed(
    backend: FileBackend, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released between the look and the watching: the second look finds it."""
    other = client()
    held = other.acquire("x", mint(), 30).grant
    watch = backend.watch()
    real = watch.add

    def late(topic: Topic) -> None:
        other.release(held)
        real(topic)

    monkeypatch.setattr(watch, "add", late)
    assert isinstance(backend.acquire("x", mint(), 30, queue=watch), Granted)
    watch.close()


def test_without_inotify_waiting_is_polling(backend: FileBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """No instance left, or no such kernel: never an error, never a wake-up, a shorter interval."""
    monkeypatch.setattr(watch_module, "_open_inotify", lambda: -1)
    watch = backend.watch()
    watch.add(Topic("markers", "site"))
    backend.claim("site", Claim(5, mint()))
    assert watch.drain() == frozenset()
    assert select.select([watch.fileno()], [], [], 0)[0] == []
    assert watch.poll_interval <= 0.25
    watch.close()
    assert Capability.WAKE in backend.capabilities


def test_an_overflow_reports_every_topic(backend: FileBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel dropped events: everything may have changed."""
    watch = backend.watch()
    topics = {Topic("markers", "site"), Topic("lease", "x", "n")}
    for topic in topics:
        watch.add(topic)
    answers = [watch_module._HEADER.pack(-1, 0x4000, 0, 0), b""]
    monkeypatch.setattr(watch, "_read", lambda: answers.pop(0))
    assert watch.drain() == topics
    watch.close()


def test_files_that_are_no_news_wake_nobody(backend: FileBackend, folder: Path) -> None:
    """A temporary file says nothing until it is published."""
    watch = backend.watch()
    watch.add(Topic("markers", "site"))
    (folder / "test/markers/site/tmp.1").touch()
    assert watch.drain() == frozenset()
    watch.close()


def test_a_watched_folder_that_goes_away_breaks_the_channel(backend: FileBackend, folder: Path) -> None:
    """The core opens another one then, and finds out what is wrong."""
    watch = backend.watch()
    watch.add(Topic("markers", "site"))
    (folder / "test/markers/site").rmdir()
    with pytest.raises(BackendUnavailable, match=r"removed or unmounted"):
        watch.drain()
    watch.close()
    assert watch.drain() == frozenset()


def test_a_release_wakes_the_first_in_line_and_a_departure_in_the_middle_breaks_no_chain(
    backend: FileBackend, client: Clients
) -> None:
    """Nobody but the one behind is told; who stood behind the one that left then watches the one before it."""
    held = backend.acquire("x", mint(), 30).grant
    waiters = [Waiter(other, other.watch(), net=False) for other in (client(), client(), client())]
    for waiter in waiters:
        assert not waiter.look()
    first, middle, last = waiters
    topics = [Topic("lease", "x", waiter.owner.nonce) for waiter in waiters]
    middle.watch.close()
    assert select.select([last.watch.fileno()], [], [], 60)[0]
    assert last.watch.drain() == {topics[2]}
    assert not last.look()
    assert first.watch.drain() == frozenset()
    backend.release(held)
    assert select.select([first.watch.fileno()], [], [], 60)[0]
    assert topics[0] in first.watch.drain()
    assert last.watch.drain() == frozenset()
    assert first.look()
    assert select.select([last.watch.fileno()], [], [], 60)[0]
    assert last.wait(time.monotonic() + 60)
    first.watch.close()
    last.watch.close()


def test_a_stopped_process_in_line_holds_up_nobody_for_long(backend: FileBackend, client: Clients) -> None:
    """The first one is told and does nothing: the next one looks for itself within its interval."""
    held = backend.acquire("x", mint(), 30).grant
    stopped, second = (Waiter(other, other.watch()) for other in (client(), client()))
    assert not stopped.look()
    assert not second.look()
    assert second.watch.poll_interval <= 1.0
    backend.release(held)
    assert second.wait(time.monotonic() + 10)
    stopped.watch.close()
    second.watch.close()
