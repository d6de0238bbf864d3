"""The waiting room over real connections: a page for people, a proper 503 for programs, answers for probes."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from coordinate import connect
from coordinate.testing import eventually
from frappe_bootstrap import settings
from frappe_bootstrap.front import Front
from frappe_bootstrap.room import Room
from frappe_bootstrap.room_page import SiteRow, Snapshot, duration, html, metrics
from frappe_bootstrap.status import StepStatus
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGUN = "2026-01-01T00:00:01"
STEPS = (
    StepStatus("config", "done", started=BEGUN, seconds=0.2),
    StepStatus("migrate", "in progress", BEGUN, 30, expected_seconds=100, last_line="<b>half & half</b>"),
    StepStatus("assets", "not begun", expected_seconds=20),
)
WAITING = Snapshot("waiting", "image:2", "pod-1", 31.0, "", (SiteRow("shop", "pod-0[7]", STEPS),))
BROKEN = StepStatus("migrate", "failed", BEGUN, 3, failures=3, last_lines=("Traceback", "<script>alert(1)</script>"))
FAILED = Snapshot("failed", "image:2", "pod-1", 31.0, "", (SiteRow("shop", "", (BROKEN,)),))


class Rooms:
    """A room that shows what it is told to."""

    def __init__(self) -> None:
        self.shown = WAITING
        self.looks = 0
        self.said: list[str] = []
        self.web, self.health = free_port(), free_port()

    def look(self) -> Snapshot:
        """Count and show."""
        self.looks += 1
        return self.shown

    def ask(
        self, path: str, *, health: bool = False, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Return status, headers and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health if health else self.web, timeout=10)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.headers), text


@pytest.fixture
def rooms() -> Iterator[Rooms]:
    """Return a room on two ports."""
    rooms = Rooms()
    with Room(rooms.web, rooms.health, rooms.look, rooms.said.append) as room:
        rooms.room = room
        yield rooms


def test_a_browser_gets_a_page_that_reloads_itself_without_scripts(rooms: Rooms) -> None:
    """503 and Retry-After, so that nobody keeps it; what programs print is text, never markup."""
    status, headers, text = rooms.ask("/app/home", Accept="text/html,*/*")
    assert (status, headers["Retry-After"], headers["Cache-Control"]) == (503, "5", "no-store")
    assert 'http-equiv="refresh"' in text
    assert "<script" not in text
    for words in ("Database migration", "in progress", "pod-0[7] does the work", "image:2", "about 1 min 30 s to go"):
        assert words in text
    assert "&lt;b&gt;half &amp; half&lt;/b&gt;" in text
    assert "<script>alert" not in html(FAILED, 5)
    assert "&lt;script&gt;" in html(FAILED, 5)


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/api/method/ping", "*/*", "application/json"),
        ("/api/method/ping", "text/html", "application/json"),
        ("/assets/frappe/js/x.js", "text/html", "text/plain"),
        ("/socket.io/", "*/*", "text/plain"),
        ("/", "application/json", "application/json"),
    ],
)
def test_programs_get_a_503_of_their_own_kind(rooms: Rooms, path: str, accept: str, kind: str) -> None:
    """A script that asks for JSON is not given a page; all are told when to come again."""
    status, headers, text = rooms.ask(path, Accept=accept)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert headers["Content-Type"].startswith(kind)
    assert text
    if kind == "application/json":
        assert json.loads(text)["revision"] == "image:2"


def test_every_method_is_answered_and_a_body_is_taken(rooms: Rooms) -> None:
    """A form that is sent in the middle of an upgrade gets an answer, not a reset connection."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert rooms.ask("/api/resource/ToDo", method=method, body=b"x" * 300_000)[0] == 503
    status, _, text = rooms.ask("/", method="HEAD")
    assert (status, text) == (503, "")


def test_probes_over_http(rooms: Rooms) -> None:
    """Alive all the time, ready only when serving; facts for programs on both ports."""
    assert rooms.ask("/livez", health=True)[0] == 200
    assert rooms.ask("/readyz", health=True)[0] == 503
    assert json.loads(rooms.ask("/status.json")[2])["sites"][0]["steps"][1]["step"] == "migrate"
    text = rooms.ask("/metrics", health=True)[2]
    assert 'frappe_bootstrap_step_done{site="shop",step="config"} 1' in text
    assert 'frappe_bootstrap_ready{revision="image:2"} 0' in text
    rooms.shown = Snapshot("serving", "image:2", "pod-1", 60.0)
    eventually(lambda: rooms.ask("/readyz", health=True)[0] == 200, what="ready")


def test_the_health_port_shows_the_page_whatever_the_container_does(rooms: Rooms) -> None:
    """A service of that port never reaches a command, and nobody a 404 while that of a ready container comes up."""
    for state in ("waiting", "failed", "unready", "serving"):
        rooms.shown = msgspec.structs.replace(WAITING, state=state)
        eventually(lambda state=state: rooms.ask("/readyz", health=True)[2] == f"{state}\n", what=state)
        status, headers, text = rooms.ask("/app/home", health=True, Accept="text/html")
        assert (status, headers["Retry-After"]) == (503, "5")
        assert "Database migration" in text
        assert rooms.ask("/api/method/ping", health=True)[1]["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(("pod", "shown"), [("pod-7", "pod-7"), ("", os.uname().nodename)])
def test_the_page_names_the_pod(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, pod: str, shown: str) -> None:
    """As other members name it; with the host's network all pods of a node have the host's name."""
    monkeypatch.setenv("POD_NAME", pod)
    with connect("memory://the-page-names-the-pod") as coordinator:
        snapshot = Front(settings.load(environ), coordinator, ("config",)).look()
    assert f"Revision v1 · {shown} · starting</p>" in html(snapshot, 5)


def test_labels_of_metrics_are_quoted() -> None:
    """A revision may be any image reference."""
    assert 'revision="a\\"b\\\\c"' in metrics(Snapshot("waiting", 'a"b\\c', "h", 1.0))


def test_many_visitors_cost_one_look_a_second(rooms: Rooms) -> None:
    """The stores of a fleet that is being upgraded have something better to do."""
    threads = [threading.Thread(target=rooms.ask, args=("/",)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rooms.looks <= 3


def test_the_web_port_is_free_at_once_for_the_command(rooms: Rooms) -> None:
    """Also while somebody keeps a connection open; the health port stays."""
    with socket.create_connection(("127.0.0.1", rooms.web)):
        rooms.room.leave_the_web()
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", rooms.web))
            server.listen()
    assert rooms.ask("/livez", health=True)[0] == 200


def test_a_port_that_is_taken_does_not_end_the_boot() -> None:
    """Two replicas on one host network: one has the port, the other says so and goes on."""
    said: list[str] = []
    port = free_port()
    with Room(port, 0, lambda: WAITING, said.append), Room(port, 0, lambda: WAITING, said.append):
        assert len(said) == 1
        assert str(port) in said[0]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7200, "2.0 h")])
def test_lengths_of_time_are_for_people(seconds: float, text: str) -> None:
    """Not 7200.0."""
    assert duration(seconds) == text


def test_a_visitor_who_says_nothing_does_not_keep_others_waiting(rooms: Rooms) -> None:
    """Each connection has a thread of its own and a time limit."""
    idle = [socket.create_connection(("127.0.0.1", rooms.web)) for _ in range(20)]
    assert rooms.ask("/livez")[0] == 200
    for connection in idle:
        connection.close()
