"""What the contracts and a plugin author's own tests need: a fake clock, an opener of clients, patient asking."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Protocol

import msgspec
import pytest

from coordinate._clock import SYSTEM, Clock
from coordinate.backend import Backend, StoreSettings
from coordinate.types import MarkerRecord, MarkerState
from coordinate.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OpenBackend(Protocol):
    """Opens one more client of the store under test; each stands for a process of its own."""

    def __call__(self) -> Backend:
        """Return a new backend on the same store and namespace."""


class FakeClock:
    """A clock that only moves when told to. Wall and boot time move together.

    Example:
        >>> clock = FakeClock()
        >>> clock.advance(2.5)
        >>> clock.now()
        1002.5
    """

    def __init__(self) -> None:
        self._now = 1000.0

    def now(self) -> float:
        """Return the fake seconds since boot."""
        return self._now

    def wall(self) -> float:
        """Return the fake seconds since the epoch."""
        return 1_700_000_000.0 + self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def record(
    step: str = "migrate", state: MarkerState = MarkerState.DONE, *, token: int, **fields: object
) -> MarkerRecord:
    """Return a record of revision ``r1`` with some fields changed."""
    base = MarkerRecord(step, "r1", state, token, started=1.5, finished=2.5, attempts=1)
    return msgspec.structs.replace(base, **fields)


class Clients:
    """Opens clients of one store: the `OpenBackend` that `opener` yields.

    Args:
        kind: backend class.
        url: of the store.
        settings: equal for all clients.
    """

    def __init__(self, kind: type[Backend], url: str, settings: StoreSettings) -> None:
        self.kind = kind
        self.url = url
        self.settings = settings
        self._opened: list[Backend] = []

    def __call__(self) -> Backend:
        """Return a new backend on the same store and namespace."""
        self._opened.append(self.kind.open(parse(self.url), self.settings))
        return self._opened[-1]

    def elsewhere(self, program: str) -> dict[str, object]:
        """Run a program in another process, with a client of the same store as ``backend``; return its ``answer``."""
        source = {"module": self.kind.__module__, "name": self.kind.__qualname__, "url": self.url}
        store = {"namespace": self.settings.namespace, "timeout": self.settings.timeout}
        brief = json.dumps({"path": sys.path, "source": source, "store": store, "program": program})
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], input=brief, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def close(self) -> None:
        """Close all of them."""
        for backend in self._opened:
            backend.close()


_ELSEWHERE = """
import importlib, json, sys
brief = json.load(sys.stdin)
sys.path[:] = brief["path"]
from coordinate.backend import StoreSettings
from coordinate.url import parse
kind = getattr(importlib.import_module(brief["source"]["module"]), brief["source"]["name"])
backend = kind.open(parse(brief["source"]["url"]), StoreSettings(**brief["store"]))
scope = {"backend": backend, "answer": {}}
try:
    exec(brief["program"], scope)
finally:
    backend.close()
json.dump(scope["answer"], sys.stdout)
"""


@contextlib.contextmanager
def opener(kind: type[Backend], url: str, *, clock: Clock = SYSTEM, timeout: float = 15.0) -> Iterator[Clients]:
    """Yield what opens clients of one store, and close them all in the end."""
    clients = Clients(kind, url, StoreSettings(namespace="contract", timeout=timeout, clock=clock))
    yield clients
    clients.close()


def eventually(condition: Callable[[], bool], *, within: float = 30.0, what: str = "the condition") -> None:
    """Ask until true, at most ``within`` seconds; fail naming ``what`` otherwise."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {within} s")
        time.sleep(0.005)
