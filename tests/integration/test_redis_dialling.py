"""A name server that does not answer costs a request its time, and nobody more: no renewal, no lease, no thread."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.backends.redis import dialling
from coordinate.backends.redis.dialling import MOST, is_address
from coordinate.backends.redis.dialling import connect as dialling_connect
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import Renewed
from tests.servers import PATIENCE, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from coordinate.backends.redis import RedisBackend
    from coordinate.backends.redis.wires import Wire
    from tests.servers import RedisServer

TIMEOUT = 0.5
HOST = "store.test"


class Names:
    """A name server that knows one host, and may fall silent."""

    def __init__(self) -> None:
        self._real = socket.getaddrinfo
        self._answers = threading.Event()
        self.silent = False
        self.asked: list[str] = []
        self.when_asked: Callable[[], object] = int

    def fall_silent(self) -> None:
        """Let every look-up from now on last."""
        self.silent = True

    def answer(self) -> None:
        """Answer, also those who have asked meanwhile."""
        self.silent = False
        self._answers.set()

    def getaddrinfo(self, host: str, *args: int) -> object:
        """Stand in for the system's function."""
        if host == HOST:
            self.asked.append(host)
            self.when_asked()
            if self.silent:
                self._answers.wait()
            host = "127.0.0.1"
        return self._real(host, *args)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """The name server of this process."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answer()
    eventually(lambda: not dials(), what="the end of the look-ups")


def dials() -> int:
    """Return how many connections are being opened in threads."""
    return sum(thread.name == "coordinate-dial" for thread in threading.enumerate())


def by_name(server: RedisServer) -> str:
    """Return the server's URL with a name in it."""
    return server.url.replace("127.0.0.1", HOST)


def refused(backend: RedisBackend) -> str:
    """Return why there is no answer."""
    with pytest.raises(BackendUnavailable) as error:
        backend.ping()
    return str(error.value)


def test_a_look_up_that_lasts_costs_a_request_its_time(shared: RedisServer, names: Names) -> None:
    """It is an error like any other that nobody answers; with the name server's answer all is well again."""
    backend = opened(by_name(shared), TIMEOUT)
    names.fall_silent()
    assert f"no connection to {HOST} within {TIMEOUT} s" in refused(backend)
    names.answer()
    eventually(lambda: not dials(), what="the end of the look-up")
    backend.close()
    patient = opened(by_name(shared))
    patient.ping()
    patient.close()


def test_a_name_server_that_is_gone_gets_few_questions(shared: RedisServer, names: Names) -> None:
    """However often we ask: a thread cannot be stopped, so there is an end to them."""
    backend = opened(by_name(shared), 0.01)
    names.fall_silent()
    said = [refused(backend) for _ in range(3 * MOST)]
    assert dials() == MOST
    eventually(lambda: len(names.asked) == MOST, what="the questions")
    assert "check the name server" in said[-1]
    names.answer()
    eventually(lambda: not dials(), what="the end of the look-ups")
    patient = opened(by_name(shared))
    patient.ping()
    for each in (backend, patient):
        each.close()


def test_look_ups_that_never_end_do_not_shut_a_host_out_for_ever(
    shared: RedisServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not counted after a while; but there is an end to them, too."""
    monkeypatch.setattr(dialling, "FORGOTTEN", 0.0)
    monkeypatch.setattr(dialling, "HUNG", 2 * MOST)
    backend = opened(by_name(shared), 0.01)
    names.fall_silent()
    for _ in range(3 * MOST):
        refused(backend)
    eventually(lambda: len(names.asked) == 2 * MOST, what="the questions")
    assert dials() == 2 * MOST
    backend.close()


def test_a_forked_child_begins_to_count_anew(shared: RedisServer, names: Names) -> None:
    """The threads of its parent are not there; it can ask, and find the server."""
    backend = opened(by_name(shared), 0.01)
    names.fall_silent()
    for _ in range(MOST):
        refused(backend)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # Not `answer`: a thread that is not here may hold what that needs.
            names.silent = False
            child = opened(by_name(shared))
            child.ping()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    backend.close()


def test_a_thread_that_cannot_be_started_is_our_error(
    shared: RedisServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may have no room for another one; later there may be."""
    backend = opened(by_name(shared))

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MOST + 1):
            said = refused(backend)
            assert "can't start new thread" in said
            assert "ulimit -u" in said
    grant = granted(backend, "thread")
    assert backend.renew([grant]) == [Renewed(30)]
    assert len(names.asked) == 1
    assert backend.release(grant)
    backend.close()


def test_an_address_needs_neither_look_up_nor_thread(
    shared: RedisServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Sentinels and Clusters name their servers."""

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    backend = opened(shared.url)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        backend.ping()
    assert names.asked == []
    backend.close()


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("localhost", False), ("1.2.3", False), ("é", False)],
)
def test_addresses_are_told_from_names(host: str, answer: bool) -> None:  # noqa: FBT001 -- a parameter
    """A name in digits is looked up as well."""
    assert is_address(host) is answer


def test_an_interrupted_look_up_leaves_nothing_open(
    shared: RedisServer, admin: redis.Redis, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is opened after nobody waits for it any more is closed by who opened it, not by a collector of garbage."""
    kept: list[Wire] = []

    def connect_and_keep(wire: Wire) -> None:
        kept.append(wire)
        dialling_connect(wire)

    monkeypatch.setattr(dialling, "connect", connect_and_keep)
    backend = opened(by_name(shared))
    names.fall_silent()
    names.when_asked = functools.partial(signal.pthread_kill, threading.get_ident(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        backend.ping()
    names.answer()
    eventually(lambda: not dials(), what="the end of the look-up")
    eventually(lambda: len(admin.client_list()) == 1, what="the end of the connection")
    assert len(kept) == 1
    backend.close()


def test_a_loss_is_told_while_a_look_up_lasts(shared: RedisServer, admin: redis.Redis, names: Names) -> None:
    """The thread that renews is the one that tells: it must not wait for the name server beyond the lease's time."""
    heard: list[float] = []
    with connect(by_name(shared), ttl=3.0, namespace="t") as coordinator:
        lease = coordinator.lease("job").acquire(PATIENCE)
        lease.on_lost(lambda _: heard.append(time.clock_gettime(time.CLOCK_BOOTTIME)))
        names.fall_silent()
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        eventually(lambda: bool(heard), what="the loss")
        assert not lease.held
