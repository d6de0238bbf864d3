"""One ZooKeeper session: bounded requests, its state, and errors in our words."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    InvalidACLError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState

from coordinate.errors import BackendUnavailable
from coordinate_zookeeper.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kazoo.interfaces import IAsyncResult
    from kazoo.protocol.states import WatchedEvent

    from coordinate_zookeeper.address import Address

    Call: TypeAlias = Callable[[Driver], IAsyncResult]

FACTS = (NoNodeError, NodeExistsError, BadVersionError, NotEmptyError, RolledBackError, RuntimeInconsistency)
"""What the ensemble confirmed, as opposed to what went wrong on the way."""
_REFUSALS = (NoAuthError, AuthFailedError, InvalidACLError)
BATCH = 500
"""Requests under way at once: more would only wait in memory."""


class Session:
    """A session of one length, reconnecting for ever.

    Args:
        address: where to, and as whom.
        length: the session timeout to ask for, in seconds.
        pulse: called with this session twice a second from the connection's thread; must not block.
    """

    def __init__(self, address: Address, length: float, pulse: Callable[[Session], None]) -> None:
        self.address = address
        self.length = length
        self._pulse = pulse
        self._changed = threading.Condition()
        self._driver: Driver | None = None
        self._granted = 0.0
        self._refused = False
        self._closed = False
        self._listeners: set[Callable[[Session], None]] = set()

    @property
    def connected(self) -> bool:
        """Return whether a request would go out at once."""
        return self._granted > 0

    @property
    def granted(self) -> float:
        """Return the session timeout of the present connection in seconds; 0 without one."""
        return self._granted

    @property
    def number(self) -> int | None:
        """Return the session's id: the ``ephemeralOwner`` of its nodes."""
        driver = self._driver
        identity = driver.client_id if driver is not None else None
        return identity[0] if identity else None

    def attend(self, listener: Callable[[Session], None]) -> None:
        """Call ``listener(session)`` from the connection's thread whenever it is connected again."""
        self._listeners.add(listener)

    def neglect(self, listener: Callable[[Session], None]) -> None:
        """Stop calling it."""
        self._listeners.discard(listener)

    # The driver's thread

    def _welcome(self, granted: float) -> None:
        with self._changed:
            self._granted = granted
            self._changed.notify_all()
        for listener in list(self._listeners):
            listener(self)

    def _state_changed(self, state: KazooState) -> None:
        if state == KazooState.CONNECTED:
            return  # `_welcome` follows when it is authenticated, too
        driver = self._driver
        with self._changed:
            self._granted = 0.0
            # kazoo gives up for good, also when a server dies in the middle of the handshake.
            self._refused = driver is not None and driver.client_state == KeeperState.AUTH_FAILED
            self._changed.notify_all()

    # Requests

    def ready(self, what: str, ends: float | None = None) -> Driver:
        """Return the driver when it is connected and authenticated.

        Raises:
            BackendUnavailable: not in time.
        """
        ends = time.monotonic() + self.address.timeout if ends is None else ends
        with self._changed:
            driver = self._started(what)
            self._changed.wait_for(
                lambda: self._granted > 0 or self._refused or self._closed, max(0.0, ends - time.monotonic())
            )
            if self._granted > 0:
                return driver
            refused = self._refused
        if refused:
            raise self.failure(what, "the server refuses the credentials: look at user, password and auth=")
        words = driver.last_words.text
        raise self.failure(what, f"no connection within {self.address.timeout:g} s{f' ({words})' if words else ''}")

    def _started(self, what: str) -> Driver:
        if self._closed:
            raise self.failure(what, "this client is closed; open another")
        if self._driver is not None and not self._refused:
            return self._driver
        if self._driver is not None:
            self._driver.handler.spawn(self._driver.abandon, self.address.timeout)
        self._refused = False
        self._driver = driver = Driver(self.address, self.length, self._welcome, self._beat)
        driver.add_listener(self._state_changed)
        driver.start_async()
        return driver

    def _beat(self) -> None:
        if self._granted > 0:
            self._pulse(self)

    def ask(self, what: str, calls: Iterable[Call]) -> list[Any]:
        """Send requests in order and return an answer for each; a confirmed fact may be an exception object.

        All are sent before the first answer is waited for; ZooKeeper keeps their order.

        Raises:
            BackendUnavailable: any of them has no usable answer; what was asked may or may not happen.
        """
        ends = time.monotonic() + self.address.timeout
        driver = self.ready(what, ends)
        answers: list[Any] = []
        waiting: list[IAsyncResult] = []
        for call in calls:
            waiting.append(call(driver))
            if len(waiting) >= BATCH:
                answers += [self._answer(what, result, ends) for result in waiting]
                waiting = []
        answers += [self._answer(what, result, ends) for result in waiting]
        return answers

    def _answer(self, what: str, result: IAsyncResult, ends: float) -> Any:  # noqa: ANN401 -- kazoo's
        try:
            return result.get(timeout=max(0.001, ends - time.monotonic()))
        except FACTS as fact:
            return fact
        except _REFUSALS as error:
            why = f"access refused ({type(error).__name__}): look at user, password and the nodes' ACLs"
            raise self.failure(what, why) from error
        except KazooTimeoutError as error:
            raise self.failure(what, f"no answer within {self.address.timeout:g} s") from error
        except (KazooException, OSError) as error:
            raise self.failure(what, f"{type(error).__name__} {error}".strip()) from error

    def failure(self, what: str, why: str) -> BackendUnavailable:
        """Return the error of an operation that has no usable answer."""
        message = f"{what} on {self.address.shown} failed: {why}"
        return BackendUnavailable(message)

    def spawn(self, call: Call, done: Callable[[IAsyncResult], None]) -> None:
        """Send a request from any thread and call ``done`` with its result from the connection's; never blocks."""
        driver = self._driver
        if driver is not None:
            call(driver).rawlink(done)

    def unwatch(self, path: str, told: Callable[[WatchedEvent], None]) -> None:
        """Forget who wanted to be told of a node's next change; no request."""
        driver = self._driver
        if driver is not None:
            driver.unwatch(path, told)

    def close(self, *, keep: bool) -> None:
        """Disconnect; with ``keep`` the nodes of the session stay until it expires. Idempotent; never raises."""
        with self._changed:
            driver, self._driver = self._driver, None
            self._closed = True
            self._granted = 0.0
            self._changed.notify_all()
        if driver is not None:
            finish = driver.abandon if keep else driver.end
            finish(self.address.timeout)
