"""``coordinate doctor`` on real stores: exit codes, what is named, and that the fixes it names are fixes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from coordinate.testing import eventually
from tests.integration.test_cli import call
from tests.servers import free_port, redis_server
from tests.stacks.cluster import redis_cluster
from tests.stacks.sentinel import SERVICE, Look, sentinel_stack

if TYPE_CHECKING:
    from pathlib import Path

    import redis

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def settings(out: str) -> list[str]:
    """Return the findings of a report, without addresses."""
    return [line.partition(": ")[2] or line for line in out.splitlines() if line.startswith("PROBLEM")]


def problems(out: str) -> list[str]:
    """Return the findings of a report as they are."""
    return [line for line in out.splitlines() if line.startswith("PROBLEM")]


def apply_fixes(admin: redis.Redis, out: str) -> None:
    """Do what the report says."""
    for name, value in re.findall(r"CONFIG SET (\S+) (\w[\w-]*)", out):
        admin.config_set(name, value)


def test_each_named_fix_of_a_bad_server_is_a_fix(tmp_path: Path) -> None:
    """Default settings and some bad ones; after the fixes there is nothing left to say."""
    (tmp_path / "replica").mkdir()
    at_once = ("--repl-diskless-sync-delay", "0")
    bad = (*at_once, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--no-appendfsync-on-rewrite", "yes")
    with redis_server(tmp_path, *bad) as server, server.client() as admin:
        replica = ("--replicaof", f"127.0.0.1 {server.port}")
        with redis_server(tmp_path / "replica", *replica):
            eventually(lambda: admin.info().get("slave0", {}).get("state") == "online", what="the replica")
            code, out, _ = call("memory://", "doctor", server.url)
            assert code == 1
            assert settings(out) == [
                "maxmemory-policy allkeys-lru",
                "appendonly no",
                "min-replicas-to-write 0",
                "quarantine=auto without persistence",
            ]
            for _ in range(2):
                apply_fixes(admin, call("memory://", "doctor", server.url)[1])
            eventually(lambda: admin.info()["aof_rewrite_in_progress"] == 0, what="the first append-only file")
            code, out, _ = call(server.url, "doctor")
            assert (code, settings(out)) == (0, []), out
            assert "durable-markers" in out
            assert "failover" in out


def test_what_only_endangers_records_does_not_matter_where_there_are_none(tmp_path: Path) -> None:
    """Leases on Redis without a file, markers in files: strict quarantine is all that is missing."""
    files = f"file://{tmp_path}/markers"
    with redis_server(tmp_path) as server:
        code, out, _ = call(server.url, "doctor", COORDINATE_MARKERS_URL=files)
        assert (code, settings(out)) == (1, ["quarantine=auto without persistence"])
        code, out, _ = call(f"{server.url}?quarantine=strict", "doctor", COORDINATE_MARKERS_URL=files)
        assert code == 0
        assert out.count("used for") == 2
        code, out, _ = call(f"{server.url}?quarantine=off", "doctor", COORDINATE_MARKERS_URL=files)
        assert (code, settings(out)) == (1, ["PROBLEM   quarantine=off in the URL"])


def test_programs_read_json(tmp_path: Path) -> None:
    """The same, in fields; no password in any of them."""
    with redis_server(tmp_path, *DURABLE, password="canary") as server:
        code, out, _ = call(server.url, "doctor", "--json")
    (store,) = json.loads(out)
    assert code == 0
    assert store["used_for"] == ["leases", "markers"]
    assert store["findings"] == []
    assert "durable-markers" in store["capabilities"]
    assert store["facts"]["kind"] == "redis"
    assert "canary" not in out


def test_hidden_facts_are_named(tmp_path: Path) -> None:
    """A user without CONFIG, and one without INFO either."""
    with redis_server(tmp_path, *DURABLE) as server, server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config")
        url = server.url.replace("//", "//app:pw@")
        code, out, _ = call(url, "doctor")
        assert (code, settings(out)) == (1, ["CONFIG is hidden"])
        admin.execute_command("ACL", "SETUSER", "app", "-info")
        code, out, err = call(url, "doctor")
        assert (code, settings(out)) == (1, ["INFO is hidden"])
        assert "hides its INFO" in err


def test_a_store_that_does_not_answer_is_69() -> None:
    """With the address and what to check; a replica is none that could be used either."""
    code, out, err = call(f"redis://127.0.0.1:{free_port()}/0", "doctor")
    assert (code, out) == (69, "")
    assert "check that the server runs" in err


def test_a_replica_is_named_as_such(tmp_path: Path) -> None:
    """Leases cannot be had there."""
    (tmp_path / "replica").mkdir()
    with redis_server(tmp_path) as server:
        replica = ("--replicaof", f"127.0.0.1 {server.port}")
        with redis_server(tmp_path / "replica", *replica) as other:
            code, _, err = call(other.url, "doctor")
    assert code == 69
    assert "name the primary" in err


@pytest.mark.parametrize("url", ["memory://", "file://{folder}"])
def test_stores_without_such_settings_say_what_they_promise(url: str, tmp_path: Path) -> None:
    """Nothing to find; a plugin needs no doctor of its own."""
    code, out, _ = call(url.format(folder=tmp_path), "doctor")
    assert code == 0
    assert "promises" in out
    assert "no setting breaks a promise" in out


SOUND = (*DURABLE, "--min-replicas-to-write", "1", "--min-replicas-max-lag", "10")


def test_too_few_sentinels_are_a_finding(tmp_path: Path) -> None:
    """A good stack has none; one that nobody may be missing from has, and says what to do."""
    with sentinel_stack(tmp_path, Look(server=SOUND)) as stack:
        code, out, _ = call(stack.url, "doctor")
        assert (code, settings(out)) == (0, []), out
        fewer = stack.url.replace(f",{stack.addresses[2]}", "")
        code, out, _ = call(fewer, "doctor")
        assert (code, settings(out)) == (1, ["PROBLEM   2 Sentinels in the URL"])
        for sentinel in stack.sentinels:
            with sentinel.client() as client:
                client.execute_command("SENTINEL", "SET", SERVICE, "quorum", "3")
        code, out, _ = call(stack.url, "doctor")
        assert (code, settings(out)) == (1, ["quorum 3 of 3"] * 3)
        assert "quorum 2, on each of them" in out
        stack.sentinels[0].kill()
        code, out, _ = call(stack.url, "doctor")
        assert code == 1
        assert [f"Sentinel {stack.addresses[0]}" in line and "refused" in line for line in problems(out)].count(
            True
        ) == 1


def test_each_primary_of_a_cluster_is_examined(tmp_path: Path) -> None:
    """One bad setting on one of them is found and blamed on that one."""
    with redis_cluster(tmp_path, *SOUND) as cluster:
        url = cluster.url()
        code, out, _ = call(url, "doctor")
        assert (code, settings(out)) == (0, []), out
        with cluster.client("{x}") as client:
            client.config_set("maxmemory-policy", "allkeys-random")
            port = client.connection_pool.connection_kwargs["port"]
        code, out, _ = call(url, "doctor")
        assert (code, settings(out)) == (1, ["maxmemory-policy allkeys-random"])
        assert f":{port}: maxmemory-policy" in out
        code, out, err = call(f"redis://127.0.0.1:{port}/0", "doctor")
        assert code in {1, 69}, "the record of the server's life may be on this node, or on another"
        assert "redis+cluster://" in out + err
