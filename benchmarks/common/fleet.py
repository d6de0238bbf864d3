"""Processes that wait for one thing, and the instants at which they got it."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

# Forked, so that 64 of them start in a second on a small machine; nothing is connected before the fork.
_FORK = multiprocessing.get_context("fork")
READY_WITHIN = 60.0


def reason(error: BaseException) -> str:
    """Return in one line why something could not run."""
    if isinstance(error, NotReadyError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"not installed: {error.name} (benchmarks/requirements.txt)"
    return f"failed: {type(error).__name__}: {error}".splitlines()[0][:120]


class NotReadyError(Exception):
    """A process of a fleet has failed; the message is its own reason."""


class Gate:
    """Closed until the benchmark opens it, once, for all processes; none of them can hinder that by dying.

    An event of multiprocessing would wait for each sleeper to say that it has woken.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def forget(self) -> None:
        """In a process that only waits: it must not keep the gate closed."""
        os.close(self._writer)
        self._writer = -1

    def wait(self) -> None:
        """Return when it is open."""
        os.read(self._reader, 1)

    def open(self) -> None:
        """Let everybody through. Idempotent."""
        if self._writer >= 0:
            self.forget()

    def close(self) -> None:
        """Give the descriptors back."""
        self.open()
        os.close(self._reader)


class Member:
    """What one process of a fleet tells the benchmark: that it is ready, and instants on CLOCK_MONOTONIC."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        self.number = number

    def ready(self) -> None:
        """Say that what follows is the wait."""
        self._fleet.ready.release()

    def wait_for_the_first(self) -> None:
        """Wait until process 0 is ready: what the others wait for exists then."""
        self._fleet.first.wait()

    def wait_for_go(self) -> None:
        """Wait for the benchmark's word."""
        self._fleet.go.wait()

    def mark(self, instant: int) -> None:
        """Note the time as this process's first (0) or second (1) instant."""
        self._fleet.instants[2 * self.number + instant] = time.monotonic()

    def linger(self) -> None:
        """Stay until the benchmark ends this process."""
        self._fleet.over.wait()


class Fleet:
    """Runs one function in many processes. Use it as a context manager: it ends all of them."""

    def __init__(self, size: int, work: Callable[[Member], None]) -> None:
        self._work = work
        self.ready = _FORK.Semaphore(0)
        self.first = Gate()
        self.go = Gate()
        self.over = Gate()
        self.instants = _FORK.RawArray("d", [math.nan] * (2 * size))
        self._gates = (self.first, self.go, self.over)
        self._errors = _FORK.SimpleQueue()
        self._processes: list[BaseProcess] = [
            _FORK.Process(target=self._run, args=(Member(self, number),), daemon=True) for number in range(size)
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        for gate in self._gates:
            gate.close()

    def _run(self, member: Member) -> None:
        for gate in self._gates:
            gate.forget()
        try:
            self._work(member)
        except Exception as error:  # noqa: BLE001 -- whatever a library raises is its result
            self._errors.put(reason(error))

    @property
    def pids(self) -> list[int]:
        """Return the processes' numbers."""
        return [process.pid for process in self._processes if process.pid is not None]

    def wait_until_ready(self) -> None:
        """Return when process 0 has said so, and then all others.

        Raises:
            NotReadyError: one has failed before.
        """
        deadline = time.monotonic() + READY_WITHIN
        for number in range(len(self._processes)):
            while not self.ready.acquire(timeout=0.2):
                self._look_for_errors()
                if time.monotonic() > deadline:
                    message = f"not ready within {READY_WITHIN:g} s"
                    raise NotReadyError(message)
            if number == 0:
                self.first.open()

    def wait_until_marked(self, instant: int, seconds: float) -> int:
        """Return how many processes have noted this instant, after at most so many seconds.

        Raises:
            NotReadyError: one has failed.
        """
        deadline = time.monotonic() + seconds
        while (count := len(self.marked(instant))) < len(self._processes) and time.monotonic() < deadline:
            self._look_for_errors()
            time.sleep(0.02)
        return count

    def marked(self, instant: int) -> list[float]:
        """Return the instants that have been noted, in the order of the processes."""
        return [at for at in self.instants[instant::2] if not math.isnan(at)]

    def _look_for_errors(self) -> None:
        if not self._errors.empty():
            raise NotReadyError(self._errors.get())
