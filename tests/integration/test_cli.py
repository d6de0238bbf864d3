"""The command ``coordinate`` as people run it: real processes, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinate import connect
from coordinate.testing import eventually

ENV = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATE_")}


LIMIT = 90.0
"""Seconds within which a busy machine does what an idle one does in one or two."""
SHORT_TTL = "3"
"""For tests in which a holder dies; a machine may be too busy to keep such a lease."""


def start(url: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start ``coordinate`` in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "coordinate", *arguments],
        env=ENV | {"COORDINATE_URL": url, "COORDINATE_TTL": "30"} | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return code and output, in bounded time."""
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Return whether ``coordinate`` has come as far as to bear SIGHUP, which is the last of its signals."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & 1 << signal.SIGHUP - 1)


def call(url: str, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Run ``coordinate`` to its end."""
    return finish(start(url, *arguments, **env))


def held(url: str, name: str) -> bool:
    """Return whether somebody holds a lease."""
    state = json.loads(call(url, "status", "--json")[1])
    return any(lease["name"] == name for lease in state["leases"])


def test_run_passes_the_commands_code_output_and_token_through(store_url: str) -> None:
    """The child sees its lease's name and token, and no store URL."""
    script = "echo $COORDINATE_LEASE $COORDINATE_TOKEN [$COORDINATE_URL]; echo oops >&2; exit 7"
    code, out, err = call(store_url, "run", "jobs/report", "--", "sh", "-c", script)
    name, token, url = out.split()
    assert (code, name, url) == (7, "jobs/report", "[]")
    assert int(token) > 0
    assert "oops" in err


@pytest.mark.parametrize(("command", "code"), [(["/no/such/program"], 127), (["/etc/hostname"], 126)])
def test_run_reports_what_cannot_be_executed(store_url: str, command: list[str], code: int) -> None:
    """As a shell does."""
    assert call(store_url, "run", "x", "--", *command)[0] == code


def test_run_needs_the_separator(store_url: str) -> None:
    """Usage errors are 64, in every form."""
    for arguments in (
        ["run", "x", "true"],
        ["run", "x"],
        ["once", "a", "b"],
        ["no-such-command"],
        ["run", "--bad", "x", "--", "true"],
    ):
        assert call(store_url, *arguments)[0] == 64


def test_bad_configuration_and_unreachable_stores_have_their_codes(tmp_path: Path) -> None:
    """78 before anything is tried, 69 when nobody answers; never 75."""
    assert call("carrier-pigeon://x", "run", "x", "--", "true")[0] == 78
    assert call("memory://", "run", "a b", "--", "true")[0] == 78
    code, _, err = call("redis://127.0.0.1:1/0", "run", "-w", "1", "x", "--", "true")
    assert code == 69
    assert "127.0.0.1:1" in err
    assert call("redis://127.0.0.1:1/0", "run", "-n", "x", "--", "true")[0] == 69
    assert call(f"file://{tmp_path}/plain-file/x", "backends")[0] == 0


def test_a_held_lease_is_a_conflict_with_a_chosen_code(store_url: str) -> None:
    """-n asks once, -w waits, -E chooses the code."""
    holder = start(store_url, "run", "busy", "--", "sleep", "60")
    try:
        eventually(lambda: held(store_url, "busy"), within=LIMIT, what="the holder")
        assert call(store_url, "run", "-n", "busy", "--", "true")[0] == 75
        assert call(store_url, "run", "-n", "-E", "5", "busy", "--", "true")[0] == 5
        assert call(store_url, "run", "-w", "0.3", "busy", "--", "true")[0] == 75
    finally:
        holder.send_signal(signal.SIGTERM)
        assert finish(holder)[0] == 143


def test_a_signal_ends_command_and_lease_at_once(store_url: str) -> None:
    """SIGTERM reaches the command, the next one gets the lease without waiting for the ttl."""
    holder = start(
        store_url, "run", "busy", "--", "sh", "-c", "trap 'echo stopped; exit 0' TERM; echo up; sleep 60 & wait"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    waiter = start(store_url, "run", "-w", "20", "busy", "--", "echo", "mine")
    holder.send_signal(signal.SIGTERM)
    code, out, _ = finish(holder)
    assert (code, out) == (143, "stopped\n")
    assert finish(waiter)[:2] == (0, "mine\n")


def test_a_signal_ends_a_wait(store_url: str) -> None:
    """Nothing was held, nothing is left behind."""
    holder = start(store_url, "run", "busy", "--", "sleep", "60")
    eventually(lambda: held(store_url, "busy"), within=LIMIT, what="the holder")
    waiter = start(store_url, "run", "busy", "--", "true")
    eventually(lambda: handles_signals(waiter), within=LIMIT, what="the waiter")
    waiter.send_signal(signal.SIGINT)
    assert finish(waiter)[0] == 130
    holder.send_signal(signal.SIGTERM)
    finish(holder)


def test_once_runs_once_and_everybody_gets_the_code(store_url: str, tmp_path: Path) -> None:
    """Five members, one run, five times the same end; again later: nothing runs."""
    log = tmp_path / "runs"
    command = ["sh", "-c", f"sleep 0.3; echo ran >> {log}"]
    members = [start(store_url, "once", "migrate", "v1", "--", *command) for _ in range(5)]
    assert [finish(member)[0] for member in members] == [0] * 5
    assert call(store_url, "once", "migrate", "v1", "--", *command)[0] == 0
    assert log.read_text() == "ran\n"
    assert call(store_url, "wait", "migrate", "v1")[0] == 0


def test_a_failing_once_gives_its_code_to_everybody(store_url: str, tmp_path: Path) -> None:
    """The recorded code and the last lines; a reset allows another attempt."""
    log = tmp_path / "runs"
    command = ["sh", "-c", f"sleep 0.3; echo ran >> {log}; echo no such table >&2; exit 9"]
    members = [start(store_url, "once", "migrate", "v1", "--", *command) for _ in range(3)]
    ends = [finish(member) for member in members]
    assert [code for code, _, _ in ends] == [9, 9, 9]
    assert all("no such table" in err for _, _, err in ends)
    assert log.read_text() == "ran\n"
    assert call(store_url, "wait", "migrate", "v1")[0] == 9
    assert "failures 1" in call(store_url, "marker", "list")[1]
    assert call(store_url, "marker", "reset", "migrate", "migrate", "v1")[0] == 0
    assert call(store_url, "once", "migrate", "v1", "--", "true")[0] == 0


def test_a_later_process_gets_one_new_attempt_after_the_backoff(store_url: str) -> None:
    """Without an operator."""
    assert call(store_url, "once", "step", "v1", "--", "false")[0] == 1
    assert call(store_url, "once", "step", "v1", "--", "true")[0] == 1
    assert call(store_url, "once", "--backoff", "0.01", "step", "v1", "--", "true")[0] == 0


def test_wait_has_a_deadline(store_url: str) -> None:
    """124 when nothing happens in time."""
    assert call(store_url, "wait", "-w", "0.3", "never", "v1")[0] == 124


def test_killing_the_holder_kills_its_command_and_frees_the_name(store_url: str, tmp_path: Path) -> None:
    """SIGKILL of coordinate alone: nothing of the command outlives it, the next one follows within the ttl."""
    beat = tmp_path / "beat"
    script = f"setsid sh -c 'while :; do echo x >> {beat}; sleep 0.02; done' & sleep 60"
    holder = start(store_url, "run", "deadly", "--", "sh", "-c", script, COORDINATE_TTL=SHORT_TTL)
    eventually(beat.exists, within=LIMIT, what="the command")
    holder.kill()
    finish(holder)
    code, out, _ = call(
        store_url, "run", "-w", "60", "deadly", "--", "sh", "-c", f"wc -c < {beat}; sleep 0.2; wc -c < {beat}"
    )
    before, after = out.split()
    assert code == 0
    assert before == after


def test_backends_are_listed_without_loading_them(store_url: str) -> None:
    """Built in and installed ones."""
    code, out, _ = call(store_url, "backends")
    assert code == 0
    for scheme in ("memory", "redis", "file"):
        assert scheme in out


def test_wait_does_not_call_a_given_up_step_done(store_url: str) -> None:
    """Also when it was crashes that spent the budget, and no code is known."""
    for _ in range(5):
        member = start(store_url, "once", "deadly", "v1", "--", "sh", "-c", "echo up; sleep 60")
        assert member.stdout is not None
        assert member.stdout.readline() == "up\n"
        member.kill()
        finish(member)
        with connect(store_url) as operator:  # who does not wait for the ttl
            operator.backend.break_lease("deadly")
    assert call(store_url, "once", "deadly", "v1", "--", "true")[0] == 76
    assert call(store_url, "wait", "deadly", "v1")[0] == 76


def test_wait_goes_on_while_the_fleet_tries_again(store_url: str, tmp_path: Path) -> None:
    """A failure within the budget is not the end; the code is that of the last word."""
    waiting = [start(store_url, "wait", "-w", "30", "migrate", "v1"), start(store_url, "wait", "-w", "30", "bad", "v1")]
    script = f"[ -e {tmp_path}/tried ] || {{ touch {tmp_path}/tried; exit 9; }}"
    assert call(store_url, "once", "--attempts", "2", "migrate", "v1", "--", "sh", "-c", script)[0] == 0
    assert call(store_url, "once", "--attempts", "2", "bad", "v1", "--", "sh", "-c", "exit 9")[0] == 9
    assert [finish(member)[0] for member in waiting] == [0, 9]


def test_wait_expects_another_attempt_at_what_failed_long_ago(store_url: str) -> None:
    """By the rule of the fleet: whoever starts later than the back-off may try once more."""
    assert call(store_url, "once", "step", "v1", "--", "sh", "-c", "exit 9")[0] == 9
    assert call(store_url, "wait", "step", "v1")[0] == 9
    code, _, err = call(store_url, "wait", "--backoff", "0.01", "-w", "0.3", "step", "v1")
    assert (code, "failed with code 9" in err) == (124, True)


def test_names_that_are_also_commands_are_allowed(store_url: str) -> None:
    """A step may be called run."""
    assert call(store_url, "once", "run", "once", "--", "true")[0] == 0
    assert call(store_url, "wait", "run", "once")[0] == 0
