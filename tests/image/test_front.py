"""The front proxy on replicas whose site answers its checks slowly, or not at all."""

from __future__ import annotations

import http.server
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Self

import pytest

from coordinate.testing import eventually
from tests.image.replicas import Front, Slot, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PING = "/api/method/ping"
SLOW = 0.8
"""Seconds: longer than the pause between two checks, and much shorter than what a check may take."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Says 200 to everything, on a check when the replica lets it."""

    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        if self.path == PING:
            self.server.replica.check()
        body = self.server.replica.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no access log."""


class _Server(http.server.ThreadingHTTPServer):
    """One port of a replica."""

    daemon_threads = True

    def __init__(self, replica: Replica) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replica = replica
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a proxy that gives a check up goes away in the middle of it."""


class Replica:
    """A replica that says it is ready, and answers at once whatever is no ping.

    Args:
        name: what it answers.
        ping: called for each ping before its answer.
    """

    def __init__(self, name: str, ping: Callable[[], object]) -> None:
        self.name = name
        self.begun = self.ended = 0
        self._ping = ping
        self._counting = threading.Lock()
        self._servers = [_Server(self) for _ in range(2)]
        self.slot = Slot(*(server.server_port for server in self._servers))

    def check(self) -> None:
        """Take part in a check."""
        with self._counting:
            self.begun += 1
        self._ping()
        with self._counting:
            self.ended += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def given_up() -> Iterator[threading.Event]:
    """Return what never comes before the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_replicas_whose_ping_takes_longer_than_the_pause_between_checks_serve_on(tmp_path: Path) -> None:
    """Under load every ping is slow; the visitors of a site that only is slow get it."""
    never = threading.Event()
    with ExitStack() as stack:
        replicas = [stack.enter_context(Replica(name, lambda: never.wait(SLOW))) for name in ("one", "two")]
        front = stack.enter_context(closing(Front(tmp_path, [replica.slot for replica in replicas])))
        answers = set()

        def checked() -> bool:
            """Visit the site, and say whether each replica has been asked some times."""
            answers.add(ask(front.port, "/app").status)
            return min(replica.ended for replica in replicas) >= 3

        eventually(checked, within=60, what="three checks of each replica")
        assert answers == {200}, front.log()


def test_a_replica_whose_ping_hangs_is_left_for_one_that_answers(tmp_path: Path, given_up: threading.Event) -> None:
    """It has a while, and no more."""
    with ExitStack() as stack:
        hangs = stack.enter_context(Replica("hangs", given_up.wait))
        well = stack.enter_context(Replica("well", lambda: None))
        front = stack.enter_context(closing(Front(tmp_path, [hangs.slot, well.slot])))
        eventually(lambda: f"ready/replica-{hangs.slot.health} is DOWN" in front.log(), within=60, what="its end")
        assert hangs.begun > hangs.ended == 0
        assert {ask(front.port, "/app").body for _ in range(20)} == {"well"}
        assert f"ready/replica-{well.slot.health} is DOWN" not in front.log()


def test_without_any_replica_that_answers_its_check_visitors_see_the_waiting_page(
    tmp_path: Path, given_up: threading.Event
) -> None:
    """All hang: nobody waits for them, and nobody is told of an error."""
    with Replica("hangs", given_up.wait) as hangs, closing(Front(tmp_path, [hangs.slot])) as front:
        eventually(lambda: ask(front.port, "/app").status == 503, within=60, what="its end")
        answer = ask(front.port, "/app")
        assert (answer.status, "will be back soon" in answer.body) == (503, True)
