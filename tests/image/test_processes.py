"""One process in each container, and the servers of the compose files, as far as they are ours."""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import redis
import yaml

from coordinate.testing import eventually
from tests.image import engine
from tests.image.replicas import Replica, ask
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.image.replicas import Volume

PASSWORD = "CANARYredis"


def test_nginx_follows_and_shows_the_waiting_room_until_gunicorn_serves(shared: Volume) -> None:
    """As the pod of the chart: two containers, of which one may lead and knows the administrators' passwords."""
    image, gate = engine.build("v1"), shared.folder / "standin" / "gate"
    paused = {"STANDIN_PAUSE": "migrate:doctypes@frappe*1=/standin/gate"}
    backend = f"127.0.0.1:{free_port()}"
    web = Replica(shared, image, "serve-web", GUNICORN_BIND=backend, WAITING_ROOM_PORT="", **paused)
    nothing = dict.fromkeys(("DB_ROOT_PASS_FILE", "ADMIN_PASS_FILE", "DB_PASS_FILE"), "")
    nginx = Replica(shared, image, "serve-nginx", BACKEND=backend, BOOTSTRAP_ROLE="follow", **nothing)
    web.wait_until("leading")
    nginx.wait_until("waiting")
    page = ask(nginx.web, "/app", Accept="text/html")
    assert (page.status, "The site is being updated" in page.body) == (503, True)
    gate.touch()
    nginx.wait_until_ready()
    asset = engine.podman("exec", nginx.name, "bash", "-c", "cd sites/assets/frappe/dist && ls *.css").strip()
    assert ask(nginx.web, f"/assets/frappe/dist/{asset}").status == 200
    assert ask(nginx.web, "/assets/frappe/dist/nothing.css").status == 404
    assert ask(nginx.web, "/private/files/x").status == 404
    web.kill()
    away = ask(nginx.web)
    assert (away.status, away.headers["retry-after"]) == (503, "5")


class _Slow(http.server.BaseHTTPRequestHandler):
    """What nginx asks: it answers when it is let."""

    server: _Backend

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.set()
        self.server.let.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"whole")

    def log_message(self, *_: object) -> None:
        """Write no access log."""


class _Backend(http.server.ThreadingHTTPServer):
    """A site that takes its time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Slow)
        self.asked = threading.Event()
        self.let = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


@contextlib.contextmanager
def _backend() -> Iterator[_Backend]:
    with _Backend() as server:
        yield server
        server.let.set()
        server.shutdown()


@contextlib.contextmanager
def _nginx(port: int, backend: int) -> Iterator[str]:
    """Run serve-nginx in a container, and yield its name when it serves."""
    image, name = engine.build("v1"), f"nginx-{secrets.token_hex(4)}"
    words = ["--user=23456:0", "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:mode=1777,notmpcopyup"]
    words += [f"--env=HTTP_PORT={port}", f"--env=BACKEND=127.0.0.1:{backend}", "--cap-drop=all", "--no-healthcheck"]
    engine.podman("run", "--detach", "--name", name, *words, "--entrypoint", "serve-nginx", image)
    try:
        eventually(lambda: ask(port, "/assets/nothing").status == 404, within=60, what="nginx")
        yield name
    finally:
        engine.podman("rm", "--force", "--time", "0", name)


def test_nginx_answers_what_it_is_asked_when_it_is_stopped_and_takes_no_more() -> None:
    """TERM, which is what stops a container, is the end without a word for nginx itself."""
    port = free_port()
    with _backend() as backend, _nginx(port, backend.server_port) as name, ThreadPoolExecutor() as people:
        answer = people.submit(ask, port, "/app")
        assert backend.asked.wait(60)
        engine.podman("kill", "--signal", "TERM", name)
        eventually(lambda: not _listens(port), within=60, what="a port that is closed")
        assert not answer.done()
        backend.let.set()
        assert (answer.result(60).status, answer.result().body) == (200, "whole")
        assert int(engine.podman("wait", name)) == 0


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _command(name: str, folder: Path, port: int, primary: int) -> list[str]:
    """Return the command of a service of compose.sentinel.yaml, its folders and addresses replaced by ours."""
    file = yaml.safe_load((engine.ROOT / "examples/frappe/compose.sentinel.yaml").read_text())
    service = file["services"][name]
    replaced = {
        "$$": "$",
        "/run/secrets/": f"{folder}/",
        "dir /data": f"dir {folder / name}",
        "/data/": f"{folder / name}/",
        "lease-1 6379": f"127.0.0.1 {primary}",
        "--sentinel": f"--port {port} --sentinel",
    }
    words = [*service["entrypoint"], *service.get("command", ())]
    for old, new in replaced.items():
        words = [word.replace(old, new) for word in words]
    return words if "sentinel" in name else [*words, f"port {port}"]


@contextlib.contextmanager
def _service(name: str, folder: Path, port: int, primary: int = 0, password: str = PASSWORD) -> Iterator[redis.Redis]:
    """Run it on its volume, and yield a client of its administrator; each knows the others as ``localhost``."""
    (folder / name).mkdir(exist_ok=True)
    (folder / "redis_pass").write_text(password)
    secret = None if "sentinel" in name else password
    command, environ = _command(name, folder, port, primary), {**os.environ, "ANNOUNCED": "localhost"}
    with (
        (folder / f"{name}.log").open("ab") as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process,
        redis.Redis(port=port, password=secret, socket_timeout=5, protocol=2) as client,
    ):
        try:
            eventually(lambda: _answers(client), within=30, what=name)
            assert password.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            yield client
        finally:
            process.terminate()


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(client.ping())
    return False


class Lease(NamedTuple):
    """Clients of a primary, of its replica, and of the Sentinel that watches them."""

    primary: redis.Redis
    replica: redis.Redis
    sentinel: redis.Redis


@contextlib.contextmanager
def _leases(folder: Path, ports: list[int], password: str = PASSWORD) -> Iterator[Lease]:
    """Run three of the services; yield when they know each other."""
    with contextlib.ExitStack() as stack:
        names = ("lease-1", "lease-2", "sentinel-1")
        parts = [_service(name, folder, port, ports[0], password) for name, port in zip(names, ports, strict=True)]
        lease = Lease(*map(stack.enter_context, parts))
        eventually(lambda: lease.replica.role()[3] == b"connected", within=60, what="a replica that follows")
        eventually(lambda: _seen(lease.sentinel)[1:] == ("ok", 1), within=60, what="what Sentinel knows")
        yield lease


def _seen(sentinel: redis.Redis) -> tuple[str, str, int]:
    """Return under which name Sentinel knows the replica, how that one reaches its primary, and how many there are."""
    rows = sentinel.sentinel_slaves("leases")
    row = rows[0] if rows else {}
    return str(row.get("ip")), str(row.get("master-link-status")), len(rows)


def test_the_servers_of_the_sentinel_variant_come_up_with_a_password_and_know_each_other(tmp_path: Path) -> None:
    """Their configuration is written by a line of shell that nobody else would test; no password is in an argument."""
    ports = [free_port() for _ in range(3)]
    with _leases(tmp_path, ports) as lease:
        settings = lease.primary.config_get("*")
        assert (settings["maxmemory-policy"], settings["appendfsync"], settings["min-replicas-to-write"]) == (
            "noeviction",
            "always",
            "1",
        )
        with redis.Redis(port=ports[0], protocol=2) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_they_know_each_other_by_name_because_an_address_does_not_outlive_a_container(tmp_path: Path) -> None:
    """The replica as Sentinel hands it on, and Sentinel as it tells the others."""
    ports = [free_port() for _ in range(3)]
    with _leases(tmp_path, ports) as lease:
        assert _seen(lease.sentinel)[0] == "localhost"
        eventually(lambda: _heard(lease.primary) == b"localhost", within=30, what="a word of Sentinel")


def _heard(primary: redis.Redis) -> bytes:
    """Return which name a Sentinel gives itself."""
    with contextlib.closing(primary.pubsub()) as channel:
        channel.subscribe("__sentinel__:hello")
        for _ in range(3):
            message = channel.get_message(timeout=3)
            if message and message["type"] == "message":
                return bytes(message["data"].split(b",")[0])
    return b""


def test_what_they_held_outlives_them_and_a_rotated_password_is_the_only_one(tmp_path: Path) -> None:
    """Also when a failover has made a server write its configuration down, and its password with it."""
    ports = [free_port() for _ in range(3)]
    with _leases(tmp_path, ports) as lease:
        lease.primary.set("lease", "held")
        for server in lease:
            server.execute_command(
                *(("SENTINEL", "FLUSHCONFIG") if server is lease.sentinel else ("CONFIG", "REWRITE"))
            )
    with _leases(tmp_path, ports, "CANARYrotated") as lease:
        assert lease.primary.get("lease") == b"held"
        with (
            redis.Redis(port=ports[0], password=PASSWORD, protocol=2) as former,
            pytest.raises(redis.AuthenticationError),
        ):
            former.ping()
