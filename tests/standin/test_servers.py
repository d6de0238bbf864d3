"""The web server, the cache server and the bench's own shape (real-frappe 11; operating-frappe 12, 13, 19)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.standin.conftest import HOST, wait_for_port
from tests.standin.fleet import EXAMPLE, LIMIT, make_bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.standin.fleet import Bench


@contextlib.contextmanager
def serving(bench: Bench, *words: str) -> Iterator[Callable[[str, str], tuple[int, dict[str, object]]]]:
    """Run the web server with the bench's Python; give a function that asks it."""
    path = bench.path / "web-port"
    command = [bench.path / "env" / "bin" / "python", EXAMPLE / "web.py", "--port", "0", "--port-file", path]
    environ = {**os.environ, **bench.environ, "IMAGE_REV": "r7"}
    with subprocess.Popen([*command, *words], cwd=bench.sites, env=environ) as server:
        port = wait_for_port(server, path)

        def get(host: str, path: str) -> tuple[int, dict[str, object]]:
            with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=LIMIT)) as connection:
                connection.request("GET", path, headers={"Host": host})
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        yield get
        server.terminate()
        assert server.wait(LIMIT) == 0


def test_ping_names_site_and_revision_and_follows_maintenance(site: Bench) -> None:
    """real-frappe 11: 200, unknown Host 404, maintenance 503 for everything; SIGTERM ends with 0."""
    with serving(site) as get:
        status, body = get("s1", "/api/method/ping")
        assert (status, body["site"], body["revision"]) == (200, "s1", "r7")
        assert get("s2", "/api/method/ping")[0] == 404
        site.ok("--site", "s1", "set-maintenance-mode", "on")
        assert [get("s1", path)[0] for path in ("/api/method/ping", "/login")] == [503, 503]


def test_a_server_for_one_site_does_not_know_others(site: Bench) -> None:
    """real-frappe 11: --site."""
    with serving(site, "--site", "other") as get:
        assert get("s1", "/api/method/ping")[0] == 404


def test_a_half_made_site_is_500_and_leaves_a_session_behind(bench: Bench) -> None:
    """real-frappe 5: each failed request leaves an idle transaction, until the web server stops."""
    bench.new_site(STANDIN_DIE="new-site:doctypes@36")
    query = "SELECT ID FROM information_schema.processlist WHERE ID <> CONNECTION_ID()"
    with serving(bench) as get:
        assert get("s1", "/api/method/ping")[0] == 500
        assert len(bench.sql(query)) == 1
    assert bench.sql(query) == []


def test_an_app_that_the_image_lacks_breaks_pages_but_not_ping(site: Bench) -> None:
    """operating-frappe 12: ModuleNotFoundError for pages, ping says 200."""
    site.sql('UPDATE tabDefaultValue SET defvalue = \'["frappe", "newer_app"]\'')
    with serving(site) as get:
        assert [get("s1", path)[0] for path in ("/api/method/ping", "/login")] == [200, 500]


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"PING\r\n", b"+PONG\r\n"),
        (b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", b"-ERR unknown command 'HELLO'\r\n"),
        (b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n", b"-ERR AUTH <password> called without any password configured"),
        (b"*2\r\n$3\r\nGET\r\n$5\r\nnever\r\n", b"$-1\r\n"),
        (b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n", b"+OK\r\n"),
        (b"QUIT\r\n", b"+OK\r\n"),
    ],
)
def test_the_cache_server_answers_a_few_words_of_redis(cache_port: int, sent: bytes, answer: bytes) -> None:
    """The demo without Redis: enough for a ping, a login and a string."""
    with socket.create_connection((HOST, cache_port), LIMIT) as client:
        client.sendall(sent)
        assert client.recv(200).startswith(answer)


def test_a_cache_server_with_a_password_wants_it(tmp_path: Path) -> None:
    """REDIS_PASS: NOAUTH before, WRONGPASS on a wrong one."""
    path = tmp_path / "port"
    command = [sys.executable, EXAMPLE / "redis_standin.py", "--port-file", path, "--password", "p"]
    with subprocess.Popen(command) as server:
        with socket.create_connection((HOST, wait_for_port(server, path)), LIMIT) as client:
            answers = []
            for sent in (b"PING", b"AUTH x", b"AUTH p", b"PING"):
                client.sendall(sent + b"\r\n")
                answers.append(client.recv(200).split()[0])
        server.terminate()
    assert answers == [b"-NOAUTH", b"-WRONGPASS", b"+OK", b"+PONG"]


def test_benches_can_share_one_sites_folder_as_containers_do(tmp_path: Path) -> None:
    """real-frappe 8: config/ and logs/ are private, sites/ is the volume, apps.txt may be absent on it."""
    shared = tmp_path / "volume"
    benches = [make_bench.make_bench(tmp_path / name, sites=shared, apps_txt=False) for name in ("a", "b")]
    assert [bench.joinpath("sites").resolve() for bench in benches] == [shared, shared]
    assert not (shared / "apps.txt").exists()
    for part in ("config/pids", "logs", "apps/demo_app/demo_app/patches.txt", "env/bin/python"):
        assert all((bench / part).exists() for bench in benches)


def test_the_benchs_python_has_the_driver_and_not_the_other_one(bench: Bench) -> None:
    """operating-frappe 3: PyMySQL on v15, so feature detection must find no mysqlclient, and no pip."""
    probe = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('pymysql', 'MySQLdb', 'pip')])"
    python = bench.path / "env" / "bin" / "python"
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True, timeout=LIMIT)
    assert done.stdout == "[True, False, False]\n"


def test_main_can_be_called_in_process_with_secrets_in_argv_of_that_process_only(site: Bench) -> None:
    """frappe.md 2 (secrets without argv): set sys.argv, call main(); it ends with SystemExit 0, log wrapped."""
    shim = (
        "import sys, pymysql.connections as c\n"
        "real = c.Connection.connect\n"
        "def connect(self, *a, **k):\n"
        "    real(self, *a, **k); print('session', self.thread_id(), file=sys.stderr)\n"
        "c.Connection.connect = connect\n"
        "sys.argv = ['bench', 'frappe', '--site', 's1', 'set-admin-password', 'canary']\n"
        "from frappe.utils.bench_helper import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code)\n"
    )
    python = site.path / "env" / "bin" / "python"
    options = {"cwd": site.sites, "env": {**os.environ, **site.environ}, "capture_output": True, "text": True}
    done = subprocess.run([python, "-c", shim], check=True, timeout=LIMIT, **options)
    assert done.stdout == "0\n"
    assert done.stderr.startswith("session ")
