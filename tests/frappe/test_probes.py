"""The probes of a container: quick, and only true while its process lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frappe_bootstrap import cli, codes, probes

if TYPE_CHECKING:
    from tests.frappe.conftest import Fleet

DOCUMENT = Path(__file__).parents[2] / "docs/reference/exit-codes.md"
KEEP = """
import os, sys
from frappe_bootstrap import probes
probes.write(sys.argv[1], os.environ, revision="v1")
os.execvp("sleep", ["sleep", "60"])
"""


def probe(word: str, folder: Path, **environ: str) -> tuple[int, str]:
    """Ask as an orchestrator does: a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "frappe_bootstrap", word],
        env={"PATH": os.environ["PATH"], "BOOTSTRAP_STATE_DIR": str(folder), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_probe_says_what_the_living_process_of_the_container_says(tmp_path: Path) -> None:
    """Hazard 35, point 23: alive while it waits or works, ready only when it serves, also after exec; dead is dead."""
    assert probe("live", tmp_path)[0] == 1
    for state, ready in (("starting", 1), ("serving", 0)):
        with subprocess.Popen(
            [sys.executable, "-c", KEEP, state], env={**os.environ, "BOOTSTRAP_STATE_DIR": str(tmp_path)}
        ) as child:
            while not probes.read({"BOOTSTRAP_STATE_DIR": str(tmp_path)}):
                time.sleep(0.01)
            assert probe("live", tmp_path)[0] == 0
            assert probe("ready", tmp_path)[0] == ready
            assert probe("ready", tmp_path, IMAGE_REV="v2")[0] == 1
            child.kill()
        assert probe("live", tmp_path)[0] == 1
        assert probe("ready", tmp_path)[0] == 1


def test_another_process_with_the_same_number_is_not_taken_for_the_container(tmp_path: Path) -> None:
    """Hazard 16: files of /tmp survive a restart of the container, and numbers are used again."""
    environ = {"BOOTSTRAP_STATE_DIR": str(tmp_path)}
    assert probes.write(probes.SERVING, environ)
    assert probes.answer("ready", environ) == (True, "serving")
    (path,) = tmp_path.iterdir()
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "started": said["started"] - 1}))
    assert not probes.answer("live", environ)[0]
    for damaged in ("", "[]", "{", '{"pid": "x", "started": 1}'):
        path.write_text(damaged)
        assert not probes.answer("live", environ)[0]


def test_a_probe_imports_nothing_that_costs_time(tmp_path: Path) -> None:
    """No client library, nothing of coordinate, none of the heavier parts of the standard library."""
    program = (
        "import sys; from frappe_bootstrap import cli\ntry: cli.main(['ready'])\nexcept SystemExit: print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-c", program]
    out = subprocess.run(
        command, env={"BOOTSTRAP_STATE_DIR": str(tmp_path)}, check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in out.stdout.split()}
    assert not loaded & {"coordinate", "redis", "msgspec", "click", "pluggy", "subprocess", "socket", "pathlib", "ssl"}


def test_a_probe_answers_within_a_tenth_of_a_second(tmp_path: Path) -> None:
    """Of processor time, from its start to its end: other work of this machine does not count."""
    before = os.times()
    for _ in range(3):
        probe("live", tmp_path)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent / 3 < 0.1


def test_without_a_place_for_its_file_a_container_says_no(tmp_path: Path) -> None:
    """Read-only everywhere: the write fails quietly, the probe does not lie."""
    (tmp_path / "file").touch()
    environ = {"BOOTSTRAP_STATE_DIR": str(tmp_path / "file" / "below")}
    assert not probes.write(probes.SERVING, environ)
    assert not probes.answer("ready", environ)[0]


def test_the_table_of_exit_codes_is_the_same_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """The code, --help and the page of the documentation."""
    own = {value for name, value in vars(codes).items() if name.startswith("EXIT_")}
    assert {str(code) for code in own | codes.OWN_CODES} <= set(codes.MEANINGS)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    help_text = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    documented = {code: meaning for code, meaning in rows if code not in {"Code", "---"}}
    assert documented == codes.MEANINGS
    for code, meaning in codes.MEANINGS.items():
        assert f"{code:8} {meaning}" in help_text


def test_the_last_line_says_with_which_code_it_ends_and_why(fleet: Fleet) -> None:
    """Hazards 23 and 39: never 0 for a failure, one clear last line, and the probe says that nobody is there."""
    code, _, err = fleet.run("echo", "serving", DB_HOST="")
    assert code == 78
    assert err.splitlines()[-1].endswith(f"exit code 78: {codes.MEANINGS['78']}")
    assert probe("live", fleet.benches[0] / "state")[0] == 1


def test_a_replica_is_alive_while_it_waits_and_ready_when_it_has_become_the_command(fleet: Fleet) -> None:
    """Hazard 35: the volume says nothing about this container."""
    (fleet.root / "server" / "down").touch()
    child = fleet.start("sleep", "60")
    assert child.stderr
    while "waiting for database" not in (line := child.stderr.readline()):
        assert line
    state = fleet.benches[0] / "state"
    assert probe("live", state) == (0, "yes: starting\n")
    assert probe("ready", state)[0] == 1
    (fleet.root / "server" / "down").unlink()
    while "starting sleep" not in (line := child.stderr.readline()):
        assert line
    assert probe("ready", state, IMAGE_REV="registry/image:1") == (0, "yes: serving\n")
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == -signal.SIGTERM
    assert probe("live", state)[0] == 1
