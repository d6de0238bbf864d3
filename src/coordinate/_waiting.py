"""Waiting: one hub per coordinator, no thread of its own, one channel per store however many waits there are.

The waiting thread that comes first pumps: it polls the channels' descriptors and wakes the others; when its own wait
is over it hands the pump to another one (the leader/followers pattern of Schmidt et al., POSA 2). A process with a
single wait so pays no thread switch between the server's push and the waiter.

Promises: a wait never sleeps past its time; a topic that changed after the wait was opened wakes it, or its poll
interval does; a wait may wake for nothing. A broken channel wakes everybody and is opened again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import threading
from typing import TYPE_CHECKING, Self

from coordinate._alarm import alarm
from coordinate._clock import SYSTEM
from coordinate.errors import BackendUnavailable, ConfigError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coordinate._alarm import Alarm
    from coordinate._clock import Clock
    from coordinate.backend import Backend, Watch
    from coordinate.types import Topic

log = logging.getLogger("coordinate")

LONGEST_NAP = 1.0
"""Seconds: waits of the kernel do not count suspend, so deadlines are looked at again at least this often by whoever
has no alarm that does."""
REOPEN_AFTER = 1.0
"""Seconds between attempts to open a broken channel again; meanwhile waiters look for themselves this often."""


class Wait:
    """One waiting activity on some topics. Use it as a context manager, from one thread."""

    def __init__(self, hub: Hub, topics: dict[Backend, set[Topic]]) -> None:
        self._hub = hub
        self.topics = topics
        self.turn = threading.Condition(hub.lock)
        self.woken = False
        self.sleeping = False

    def __enter__(self) -> Self:
        self._hub.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.leave(self)

    def queue(self, backend: Backend) -> Watch | None:
        """Return the channel through which ``backend`` can tell this wait its turn; None while it is broken."""
        return self._hub.channel(backend)

    def sleep(self, until: float) -> None:
        """Return when a topic changed, when it is time to look for oneself, or at ``until`` on the hub's clock.

        Raises:
            Interrupted: a signal asked this process to stop.
        """
        self._hub.sleep(self, until)


class Hub:
    """All waits of one coordinator."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.Lock()
        self._changing = threading.Lock()
        """Orders subscribing and unsubscribing; taken before ``_opening``, which is taken before ``lock``."""
        self._opening = threading.Lock()
        self._clock = clock
        self._waits: set[Wait] = set()
        self._pump: Wait | None = None
        self._channels: dict[Backend, Watch] = {}
        self._reopen_at: dict[Backend, float] = {}
        self._counts: dict[tuple[Backend, Topic], int] = {}
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._alarm: Alarm | None = None
        self._alarmed = clock is not SYSTEM
        """Whether the alarm was made, or cannot be: it knows the system's clock only."""
        self._signum = 0
        self._closed = False

    # Opening and closing waits

    def wait(self, *interests: tuple[Backend, Topic]) -> Wait:
        """Return a wait on these topics; enter it before reading the state that it is about."""
        topics: dict[Backend, set[Topic]] = {}
        for backend, topic in interests:
            topics.setdefault(backend, set()).add(topic)
        return Wait(self, topics)

    def enter(self, wait: Wait) -> None:
        """Start to watch what a wait is about.

        Raises:
            ConfigError: the coordinator is closed.
        """
        if self._closed:
            message = "the coordinator is closed: nothing can be waited for; make a new one"
            raise ConfigError(message)
        with self._changing:
            with self.lock:
                self._waits.add(wait)
                fresh = [pair for pair in _pairs(wait) if self._count(pair, 1) == 1]
            for backend, topic in fresh:
                self._add(backend, topic)
        self._dispatch(self._drain())

    def leave(self, wait: Wait) -> None:
        """Stop watching what only this wait was about."""
        with self._changing:
            with self.lock:
                self._waits.discard(wait)
                stale = [pair for pair in _pairs(wait) if self._count(pair, -1) == 0]
                channels = dict(self._channels)
            for backend, topic in stale:
                try:
                    if backend in channels:
                        channels[backend].remove(topic)
                except BackendUnavailable as error:
                    self._break(backend, error)

    def _count(self, pair: tuple[Backend, Topic], change: int) -> int:
        self._counts[pair] = self._counts.get(pair, 0) + change
        return self._counts[pair] or self._counts.pop(pair)

    # Channels

    def channel(self, backend: Backend) -> Watch | None:
        """Return the open channel to a store; None while there is none."""
        with self.lock:
            return self._channels.get(backend)

    def _add(self, backend: Backend, topic: Topic) -> None:
        """Watch a topic, opening the channel if there is none; failing that, waiters poll."""
        try:
            channel = self._open(backend)
            if channel is not None:
                channel.add(topic)
        except BackendUnavailable as error:
            self._break(backend, error)

    def _open(self, backend: Backend) -> Watch | None:
        # Opening talks to a server: other waits go on meanwhile, so the hub's own lock is not held.
        with self._opening:
            with self.lock:
                channel = self._channels.get(backend)
                if channel is not None or self._reopen_at.get(backend, 0.0) > self._clock.now():
                    return channel
            channel = backend.watch()
            with self.lock:
                self._channels[backend] = channel
            self.ring()
            return channel

    def _break(self, backend: Backend, error: BackendUnavailable) -> None:
        log.warning("waiting channel broken, polling until it is back: %s", error)
        with self.lock:
            channel = self._channels.pop(backend, None)
            self._reopen_at[backend] = self._clock.now() + REOPEN_AFTER
            for wait in self._waits:
                if backend in wait.topics:
                    self._wake(wait)
        # Whoever pumps may be about another store, and asleep for long: it opens this one again.
        self.ring()
        if channel is not None:
            channel.close()

    def _mend(self) -> None:
        """Open broken channels again and watch everything that waits are about; they look for themselves then."""
        with self.lock:
            now = self._clock.now()
            due = [backend for backend, at in self._reopen_at.items() if at <= now]
            topics = [(backend, topic) for backend, topic in self._counts if backend in due]
            for backend in due:
                del self._reopen_at[backend]
        for backend, topic in topics:
            self._add(backend, topic)
        with self.lock:
            for wait in self._waits:
                if any(backend in wait.topics for backend in due):
                    self._wake(wait)

    # Sleeping and waking

    def ring(self, signum: int = 0) -> None:
        """Make the pump look around; with a signal number every wait raises `Interrupted`, now and ever after.

        Safe in a signal handler: takes no lock.
        """
        if signum:
            self._signum = signum
        bell = self._bell
        if bell >= 0:  # else it is closed, and nobody waits any more
            os.eventfd_write(bell, 1)

    def check_interrupt(self) -> None:
        """Raise if a signal asked this process to stop.

        Raises:
            Interrupted: with the signal's number.
        """
        if self._signum:
            message = f"stopped by signal {self._signum}"
            raise Interrupted(message, self._signum)

    def sleep(self, wait: Wait, until: float) -> None:
        """See `Wait.sleep`."""
        until = min(until, self._clock.now() + self._patience(wait))
        try:
            while not self._over(wait, until):
                self._pump_once(until)
        finally:
            self._hand_over(wait)
        self.check_interrupt()

    def _patience(self, wait: Wait) -> float:
        """Return after how many seconds a waiter has to look for itself."""
        with self.lock:
            intervals = [
                self._channels[backend].poll_interval if backend in self._channels else REOPEN_AFTER
                for backend in wait.topics
            ]
        return min(intervals, default=math.inf)

    def _over(self, wait: Wait, until: float) -> bool:
        """Follow until woken, out of time (True), or asked to pump (False)."""
        with self.lock:
            while True:
                left = until - self._clock.now()
                if wait.woken or left <= 0 or self._signum:
                    wait.woken = False
                    return True
                if self._pump in {None, wait}:
                    self._pump = wait
                    return False
                wait.sleeping = True
                wait.turn.wait(min(left, LONGEST_NAP))
                wait.sleeping = False

    def _hand_over(self, wait: Wait) -> None:
        with self.lock:
            # Also when nobody pumps: the follower that was asked last may have been leaving already.
            if self._pump in {None, wait}:
                self._pump = None
                follower = next((other for other in self._waits if other.sleeping), None)
                if follower is not None:
                    follower.turn.notify()

    def _pump_once(self, until: float) -> None:
        self._mend()
        with self.lock:
            descriptors = [self._bell, *(channel.fileno() for channel in self._channels.values())]
            until = min([until, *self._reopen_at.values()])
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        left = max(0.0, until - self._clock.now())
        # Rounded up: a nap that ends a fraction of a millisecond early would be followed by a busy loop.
        nap: int | None = math.ceil(min(left, LONGEST_NAP) * 1000)
        clock = self._alarm_at(until) if left > LONGEST_NAP else None
        if clock is not None:
            poller.register(clock, select.POLLIN)
            nap = None
        ready = {descriptor for descriptor, _ in poller.poll(nap)}
        ready.discard(-1 if clock is None else clock)
        if self._bell in ready:
            self._answer_bell()
        if ready - {self._bell}:
            self._dispatch(self._drain())

    def _alarm_at(self, until: float) -> int | None:
        """Return the descriptor of an alarm that was set; None where there is none. Asked by whoever pumps."""
        if not self._alarmed:
            self._alarmed = True
            self._alarm = alarm()
        if self._alarm is None or not self._alarm.set(until):
            return None
        return self._alarm.fileno()

    def _answer_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        if self._signum:
            with self.lock:
                for wait in self._waits:
                    wait.turn.notify()

    def _drain(self) -> set[Topic]:
        with self.lock:
            channels = list(self._channels.items())
        changed: set[Topic] = set()
        for backend, channel in channels:
            try:
                changed |= channel.drain()
            except BackendUnavailable as error:
                self._break(backend, error)
        return changed

    def _dispatch(self, changed: Iterable[Topic]) -> None:
        changed = set(changed)
        if not changed:
            return
        with self.lock:
            for wait in self._waits:
                if any(topics & changed for topics in wait.topics.values()):
                    self._wake(wait)

    def _wake(self, wait: Wait) -> None:
        wait.woken = True
        wait.turn.notify()
        if wait is self._pump:
            self.ring()

    def close(self) -> None:
        """Close all channels. Waits that still sleep find nothing but their time."""
        with self.lock:
            self._closed = True
            channels = list(self._channels.values())
            self._channels.clear()
            if not self._waits and self._bell >= 0:
                bell, self._bell = self._bell, -1
                os.close(bell)
                if self._alarm is not None:
                    self._alarm.close()
                    self._alarm, self._alarmed = None, True
        for channel in channels:
            channel.close()


def _pairs(wait: Wait) -> list[tuple[Backend, Topic]]:
    return [(backend, topic) for backend, topics in wait.topics.items() for topic in topics]
