"""The one file that the bench's Python runs."""

from __future__ import annotations

import ast
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from coordinate.testing import eventually
from frappe_bootstrap.bench import SHIM, _Channel

Process = subprocess.CompletedProcess[str]
HELPER = "import os, signal, subprocess, sys\ndef main():\n"
DRIVER = """
class Cursor:
    def execute(self, *_): pass
    def fetchall(self): return [{"ID": 7, "HOST": "here:1"}]
    def close(self): pass
class Connection:
    def cursor(self): return Cursor()
    def rollback(self): pass
def connect(**_): return Connection()
"""


def run_shim(
    folder: Path, request: dict[str, Any], body: str = "", acknowledge: bytes = b"+", python: str = sys.executable
) -> tuple[Process, list[Any]]:
    """Run the shim on a framework whose main() is ``body``; return the process and its answers."""
    package = folder / "frappe" / "utils"
    package.mkdir(parents=True, exist_ok=True)
    (package / "bench_helper.py").write_text(
        HELPER + "".join(f"    {line}\n" for line in body.splitlines() or ["pass"])
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(json.dumps(request).encode() + b"\n" + acknowledge)
        done = subprocess.run(
            [python, SHIM, str(theirs.fileno())],
            cwd=folder,
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        ours.settimeout(0)
        try:
            answers = ours.recv(65536).decode().splitlines()
        except OSError:
            answers = []
    return done, [json.loads(line) for line in answers]


def bench(*argv: str, secrets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a request."""
    return {"job": "bench", "argv": list(argv), "secrets": list(secrets)}


def test_the_shim_needs_nothing_but_a_standard_library() -> None:
    """Point 5: no module of ours or of anybody else, and one name per file that no bench has."""
    own = {path.stem for path in SHIM.glob("*.py")}
    for path in SHIM.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names) | own
    assert all(name.startswith("shim_") for name in own - {"__main__"})


def test_arguments_arrive_in_process_and_nowhere_else(tmp_path: Path) -> None:
    """What the kernel shows of the process has no secret in it; what it prints of one is masked, in any spelling."""
    body = (
        'print(sys.argv[1:], open("/proc/self/cmdline").read().count("s3/cret"), "s3%2Fcret", end="\\r")\n'
        "sys.stdout.flush()\n"
        'subprocess.run(["sh", "-c", "echo s3/cret >&2"])'
    )
    done, _ = run_shim(tmp_path, bench("new-site", "--admin-password=s3/cret", secrets=("s3/cret",)), body)
    words = ["['frappe', 'new-site', '--admin-password=***'] 0 ***", "***"]
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, words)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('s3cret')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_a_command_ends_as_it_would_without_us(tmp_path: Path, body: str, code: int) -> None:
    """Exit codes and signals pass the filter, and so do the last words."""
    done, _ = run_shim(tmp_path, bench("migrate", secrets=("s3cret",)), f"print('last s3cret', flush=True)\n{body}")
    assert done.returncode == code
    assert "last ***" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize("driver", ["pymysql", "MySQLdb"])
def test_a_database_session_is_made_known_before_its_use(tmp_path: Path, driver: str) -> None:
    """Either driver; the command goes on only when the session is written down."""
    (tmp_path / f"{driver}.py").write_text(DRIVER)
    body = f"import {driver}\n{driver}.connect()\nprint('used')"
    done, answers = run_shim(tmp_path, bench("migrate"), body)
    assert answers == [{"session": 7, "host": "here:1"}]
    assert done.stdout.splitlines() == ["", "database session 7", "used"]


def test_damage_of_a_config_file_has_four_kinds(tmp_path: Path) -> None:
    """Missing, empty, bad and incomplete are told apart, before any login."""
    (tmp_path / "s1").mkdir()
    path = tmp_path / "s1" / "site_config.json"
    request = {"job": "inspect", "site": "s1", "db_name": "d", "server": {"db_host": "127.0.0.1", "db_port": 1}}
    results = []
    for content in (None, "", "{", '{"db_name": "d"}'):
        if content is not None:
            path.write_text(content)
        _, (answer,) = run_shim(tmp_path, request)
        results.append((answer["folder"], answer["config"], "login" in answer))
    assert results == [(True, kind, False) for kind in ("missing", "empty", "bad", "incomplete")]


def interpreters() -> list[str]:
    """Return every Python from 3.10 on that is installed here, ours at least."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {sys.executable: sys.version_info[:2]}
    for minor in range(10, 20):
        places = [*root.glob(f"3.{minor}*/bin/python3.{minor}"), Path(f"/usr/bin/python3.{minor}")]
        if any(place.exists() for place in places):
            found[str(next(place for place in places if place.exists()))] = (3, minor)
    return sorted(found)


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).name)
def test_the_shim_runs_on_every_python_that_a_bench_may_have(tmp_path: Path, python: str) -> None:
    """Point 5: each file compiles, every job starts, a look gives its answer and a command runs."""
    files = sorted(map(str, SHIM.glob("*.py")))
    check = "import sys\nfor name in sys.argv[1:]: compile(open(name).read(), name, 'exec')"
    subprocess.run([python, "-c", check, *files], check=True, timeout=60)
    address = {"db_host": "127.0.0.1", "db_port": 1}
    for job in ({"job": "inspect"}, {"job": "settle", "sessions": [], "timeout": 1}, {"job": "record"}):
        request = {**job, "site": "s1", "db_name": "d", "server": address}
        _, (answer,) = run_shim(tmp_path, request, python=python)
        assert answer.get("folder", answer.get("ok")) is False
    done, _ = run_shim(tmp_path, bench("migrate", secrets=("s3cret",)), "print('s3cret')", python=python)
    assert (done.returncode, done.stdout) == (0, "***\n")


def test_a_request_that_no_socket_holds_waits_for_its_reader_in_the_background() -> None:
    """Thousands of patches: whoever writes it all before the shim starts waits for ever, with the site closed."""
    request = {"job": "record", "value": ["p" * 64] * 20_000}
    made: queue.Queue[_Channel] = queue.Queue()
    threading.Thread(target=lambda: made.put(_Channel(request)), daemon=True).start()
    with made.get(timeout=60) as channel, channel.theirs.makefile("rb") as reader:
        assert json.loads(reader.readline()) == request
    # One whose shim never reads ends with the channel.
    before = threading.active_count()
    with _Channel(request):
        assert threading.active_count() == before + 1
    eventually(lambda: threading.active_count() == before, what="its end")
