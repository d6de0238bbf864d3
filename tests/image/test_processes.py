"""One process in each container, and the servers of the compose files, as far as they are ours."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

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
def _service(name: str, folder: Path, port: int, primary: int = 0) -> Iterator[redis.Redis]:
    """Run it, and yield a client of its administrator."""
    (folder / name).mkdir()
    password = None if "sentinel" in name else PASSWORD
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(_command(name, folder, port, primary), stdout=log, stderr=log) as process,
        redis.Redis(port=port, password=password, socket_timeout=5, protocol=2) as client,
    ):
        try:
            eventually(lambda: _answers(client), within=30, what=name)
            assert PASSWORD.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            yield client
        finally:
            process.terminate()


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(client.ping())
    return False


def test_the_servers_of_the_sentinel_variant_come_up_with_a_password_and_know_each_other(tmp_path: Path) -> None:
    """Their configuration is written by a line of shell that nobody else would test; no password is in an argument."""
    (tmp_path / "redis_pass").write_text(PASSWORD)
    ports = [free_port() for _ in range(3)]
    with (
        _service("lease-1", tmp_path, ports[0]) as primary,
        _service("lease-2", tmp_path, ports[1], primary=ports[0]) as replica,
        _service("sentinel-1", tmp_path, ports[2], primary=ports[0]) as sentinel,
    ):
        eventually(lambda: replica.role()[3] == b"connected", within=30, what="a replica that follows")
        eventually(lambda: sentinel.sentinel_master("leases")["num-slaves"] == 1, within=30, what="what Sentinel knows")
        settings = primary.config_get("*")
        assert (settings["maxmemory-policy"], settings["appendfsync"], settings["min-replicas-to-write"]) == (
            "noeviction",
            "always",
            "1",
        )
        with redis.Redis(port=ports[0], protocol=2) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
