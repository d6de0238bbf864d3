"""The rules of the doctor for Redis: what each one sees, and what it lets pass."""

from __future__ import annotations

import pytest

from coordinate.backends.redis.doctor import Sight, judge
from coordinate.backends.redis.options import Options

GOOD_INFO = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "maxmemory": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "connected_slaves": "1",
    "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=0",
    "cluster_enabled": "0",
}
GOOD_CONFIG = {
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "10",
    "save": "",
}
OPTIONS = Options(1.0, "auto", "none", {})


def findings(
    info: dict[str, str] | None = None, config: dict[str, str] | None = None, options: Options = OPTIONS
) -> list[str]:
    """Return what is said about a good server with these differences."""
    sight = Sight("h:1", GOOD_INFO | (info or {}), GOOD_CONFIG | (config or {}), {}, 0.0, in_cluster=False)
    return [finding.setting.removeprefix("h:1: ") for finding in judge(sight, options)]


def test_a_good_server_has_no_findings() -> None:
    """Then the command ends with 0."""
    assert findings() == []


@pytest.mark.parametrize(
    ("info", "config", "said"),
    [
        ({"redis_version": "6.0.16"}, {}, "version 6.0.16"),
        ({"redis_version": "5"}, {}, "version 5"),
        ({"maxmemory_policy": "allkeys-lru"}, {}, "maxmemory-policy allkeys-lru"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": "1000000"}, {}, "maxmemory-policy volatile-ttl"),
        ({"redis_version": "6.2.6"}, {}, "min-replicas-to-write 1 on version 6.2.6"),
        ({"aof_last_write_status": "err"}, {}, "aof_last_write_status err"),
        ({}, {"appendfsync": "everysec"}, "appendfsync everysec"),
        ({}, {"no-appendfsync-on-rewrite": "yes"}, "no-appendfsync-on-rewrite yes"),
        ({}, {"min-replicas-to-write": "0"}, "min-replicas-to-write 0"),
        ({}, {"min-replicas-max-lag": "0"}, "min-replicas-max-lag 0"),
        ({}, {"min-replicas-max-lag": "60"}, "min-replicas-max-lag 60"),
        (
            {"slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave,offset=0,lag=0"},
            {},
            "replica 10.0.0.2:6379: wait_bgsave, 0 s behind",
        ),
        (
            {"slave0": "ip=10.0.0.2,port=6379,state=online,offset=0,lag=70"},
            {},
            "replica 10.0.0.2:6379: online, 70 s behind",
        ),
        ({"cluster_enabled": "1"}, {}, "a node of a Redis Cluster"),
    ],
)
def test_each_bad_setting_is_one_finding(info: dict[str, str], config: dict[str, str], said: str) -> None:
    """With its name and value, and nothing else is blamed."""
    assert findings(info, config) == [said]


@pytest.mark.parametrize(
    ("info", "config"),
    [
        ({"redis_version": "6.2.0", "connected_slaves": "0"}, {"min-replicas-to-write": "0"}),
        ({"redis_version": "6.2.7"}, {}),
        ({"redis_version": "7.0-rc1"}, {}),
        ({"redis_version": "10.1"}, {}),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": "0"}, {}),
        ({"connected_slaves": "0"}, {"min-replicas-to-write": "0"}),
    ],
)
def test_what_endangers_nothing_is_let_pass(info: dict[str, str], config: dict[str, str]) -> None:
    """A finding that is none teaches people to ignore the others."""
    assert findings(info, config) == []


def test_a_server_that_forgets_is_a_finding_unless_new_owners_wait() -> None:
    """No file at all: strict is the fix where leases are concerned."""
    bare = {"aof_enabled": "0"}
    assert findings(bare) == ["appendonly no", "quarantine=auto without persistence"]
    assert findings(bare, options=OPTIONS._replace(quarantine="strict")) == ["appendonly no"]


def test_a_snapshot_that_may_be_older_than_a_lease_is_a_finding_unless_nobody_waits_anyway() -> None:
    """The record of the longest lease, by which a restart is waited out, is as old as the snapshot."""
    info, config = {"aof_enabled": "0"}, {"save": "3600 1"}
    for quarantine in ("auto", "strict"):
        options = OPTIONS._replace(quarantine=quarantine)
        assert findings(info, config, options) == ["appendonly no", "snapshots only"]
    assert findings(info, config, OPTIONS._replace(quarantine="off")) == ["appendonly no"]


def test_what_is_hidden_is_a_finding_of_its_own() -> None:
    """What cannot be seen is not promised."""
    hidden = judge(Sight("h:1", None, None, {}, 0.0, in_cluster=False), OPTIONS)
    assert [finding.setting for finding in hidden] == ["h:1: INFO is hidden"]
    no_config = judge(Sight("h:1", GOOD_INFO, None, {}, 0.0, in_cluster=False), OPTIONS)
    assert [finding.setting for finding in no_config] == ["h:1: CONFIG is hidden"]


@pytest.mark.parametrize(("ahead", "words"), [(90.0, "90 s ahead of ours"), (-90.0, "90 s behind ours"), (1.0, "")])
def test_clocks_that_differ_are_a_finding(ahead: float, words: str) -> None:
    """More than a busy network explains."""
    sight = Sight("h:1", GOOD_INFO, GOOD_CONFIG, {}, ahead, in_cluster=False)
    said = [finding.setting for finding in judge(sight, OPTIONS)]
    assert said == ([f"h:1: its clock is {words}"] if words else [])


def test_a_cluster_needs_all_its_slots_and_replicas() -> None:
    """Seen on each of its primaries."""
    info = GOOD_INFO | {"cluster_enabled": "1"}
    good = Sight("h:1", info, GOOD_CONFIG, {"cluster_state": "ok"}, 0.0, in_cluster=True)
    assert judge(good, OPTIONS) == []
    bad = good._replace(cluster={"cluster_state": "fail"}, info=info | {"connected_slaves": "0"})
    assert [finding.setting for finding in judge(bad, OPTIONS)] == ["h:1: cluster_state fail", "h:1: no replica"]
