"""The small commands and the command line (real-frappe 3, 4; operating-frappe 7, 13, 15, 18)."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.standin.fleet import Bench, Gate


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--site", "nope", "migrate"], "Site nope does not exist!"),
        (["migrate"], "Please specify --site"),
        (["--site", "s1", "no-such-command"], "invalid choice"),
        (["--site", "s1", "migrate", "--no-such-option"], "unrecognized arguments"),
    ],
)
def test_every_refusal_is_1_and_only_the_text_differs(bench: Bench, words: list[str], text: str) -> None:
    """real-frappe 4: exit code 1 never says why."""
    done = bench.run(*words)
    assert done.returncode == 1
    assert text in done.stdout + done.stderr


def test_the_site_may_come_from_the_environment_or_be_the_default(site: Bench) -> None:
    """real-frappe 3 and operating-frappe 15: FRAPPE_SITE works; `use` writes default_site."""
    assert site.ok("list-apps", FRAPPE_SITE="s1") == "frappe\n"
    assert "does not exist" in site.ok("use", "nope")
    site.ok("use", "s1")
    assert site.config("common_site_config.json")["default_site"] == "s1"
    assert site.ok("list-apps") == "frappe\n"


def test_pause_is_in_the_config_and_enable_in_the_database(site: Bench) -> None:
    """frappe.md 2: scheduler pause and resume write site_config.json, enable and disable a database row."""
    site.ok("--site", "s1", "scheduler", "pause")
    site.ok("--site", "s1", "scheduler", "enable")
    assert site.config()["pause_scheduler"] == 1
    assert site.sql("SELECT value FROM tabSingles WHERE field = 'enable_scheduler'") == [("1",)]
    site.ok("--site", "s1", "scheduler", "resume")
    assert site.config()["pause_scheduler"] == 0


def test_set_config_writes_texts_and_parsed_values(bench: Bench) -> None:
    """frappe.md 2: -g for all sites, -p parses the value, None removes a key."""
    bench.ok("set-config", "-g", "redis_socketio", "redis://h:1")
    bench.ok("set-config", "-g", "-p", "limits", "{'a': [1]}")
    assert bench.config("common_site_config.json")["limits"] == {"a": [1]}
    bench.ok("set-config", "-g", "redis_socketio", "None")
    assert "redis_socketio" not in bench.config("common_site_config.json")


def test_a_config_is_truncated_in_place_under_its_own_lock(site: Bench, gate: Callable[[str], Gate]) -> None:
    """operating-frappe 18: a reader in that instant finds an empty file, and migrate an unusable one."""
    held = gate("config:truncated@site_config.json")
    with site.started("--site", "s1", "set-maintenance-mode", "on", **held.environ) as process:
        held.wait()
        assert (site.sites / "s1" / "site_config.json").read_text() == ""
        assert "is invalid" in site.run("--site", "s1", "list-apps").stdout
        held.open()
        process.communicate(timeout=120)
    assert site.config()["maintenance_mode"] == 1


def test_readiness_counts_queued_jobs_by_prefix_of_the_site(site: Bench, cache_port: int) -> None:
    """operating-frappe 7: site s1 matches s1x::job, too; running jobs are not counted."""
    queue = {"FRAPPE_REDIS_QUEUE": f"redis://127.0.0.1:{cache_port}"}
    with contextlib.closing(socket.create_connection(("127.0.0.1", cache_port))) as redis:
        redis.sendall(b'*3\r\n$3\r\nSET\r\n$14\r\nstandin:queued\r\n$10\r\n["s1x::j"]\r\n')
        assert redis.recv(100) == b"+OK\r\n"
        assert site.run("--site", "s1", "ready-for-migration", **queue).returncode == 1
        redis.sendall(b"*2\r\n$3\r\nDEL\r\n$14\r\nstandin:queued\r\n")
        assert redis.recv(100) == b":1\r\n"
    site.ok("--site", "s1", "ready-for-migration", **queue)


def test_progress_is_redrawn_with_carriage_returns(bench: Bench) -> None:
    """real-frappe 4: a chatty program on stdout; its last lines are all that tells why it failed."""
    done = bench.new_site(STANDIN_FAIL="new-site:doctypes@40")
    assert "\rUpdating DocTypes for frappe : [================" in done.stdout.replace("\n", "\r")
    assert done.stderr.splitlines()[-1] == "RuntimeError: stand-in failure at new-site:doctypes 40"
