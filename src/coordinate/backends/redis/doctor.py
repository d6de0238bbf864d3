"""Settings of Redis servers that break a promise, each with what it breaks and the fix.

`look` asks each primary once; the rules below are functions of what was seen.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, cast

from redis.exceptions import ResponseError

from coordinate.backends.redis.failures import is_momentary
from coordinate.types import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coordinate.backends.redis.node import Line
    from coordinate.backends.redis.options import Options
    from coordinate.backends.redis.topology import Topology
    from coordinate.backends.redis.wires import Reply

OLDEST = (6, 2)
HEEDS_REPLICAS = (6, 2, 7)
"""The first version that heeds min-replicas-to-write in scripts, which is where everything is written."""
LONG_LAG = 10
"""Seconds: Redis' default for min-replicas-max-lag."""
CLOCK = 5.0
"""Seconds by which a server's clock may differ from ours before somebody should look at it."""
_SETTINGS = (b"*appendfsync*", b"min-replicas-*", b"save")
_LEASES, _MARKERS = ("leases",), ("markers",)
_BOTH = (*_LEASES, *_MARKERS)


class Sight(NamedTuple):
    """What one server shows.

    Args:
        place: its address.
        info: the fields of INFO; None where it is hidden.
        config: some settings; None where they are hidden.
        cluster: the fields of CLUSTER INFO; empty where this is no cluster, or it is hidden.
        ahead: seconds by which its clock is ahead of ours.
        in_cluster: whether the URL names a cluster.
    """

    place: str
    info: dict[str, str] | None
    config: dict[str, str] | None
    cluster: dict[str, str]
    ahead: float
    in_cluster: bool


def examine(server: Topology) -> list[Finding]:
    """Return what breaks a promise, of all primaries.

    Raises:
        BackendUnavailable: one of them does not answer.
    """
    what = "examining the settings"
    findings = _of_options(server.options) + server.findings()
    in_cluster = "cluster" in server.url.scheme
    for sight in server.everywhere(what, lambda line: look(line, in_cluster=in_cluster)):
        findings += judge(sight, server.options)
    return findings


def look(line: Line, *, in_cluster: bool) -> Sight:
    """Ask one server for all that the rules need.

    Raises:
        redis.RedisError, OSError: no answer.
    """
    info = _fields(_permitted(line, b"INFO"))
    settings = [_permitted(line, b"CONFIG", b"GET", pattern) for pattern in _SETTINGS]
    clustered = info is not None and info.get("cluster_enabled") == "1"
    cluster = _fields(_permitted(line, b"CLUSTER", b"INFO")) if clustered else None
    return Sight(line.node.address.place, info, _pairs(settings), cluster or {}, _clock(line), in_cluster)


def judge(sight: Sight, options: Options) -> list[Finding]:
    """Return what is wrong with one server."""
    if sight.info is None:
        breaks = "a failover or restart is not noticed: two holders for up to one ttl; durability cannot be seen"
        fix = "ACL SETUSER <user> +info; where a service hides it, keep markers elsewhere (COORDINATE_MARKERS_URL)"
        return [_finding(sight, "INFO is hidden", breaks, fix, _BOTH)]
    rules: tuple[Callable[[Sight, dict[str, str], Options], Iterator[Finding]], ...] = (
        _version, _eviction, _persistence, _replicas, _emptiness, _cluster, _time,
    )  # fmt: skip
    return [finding for rule in rules for finding in rule(sight, sight.info, options)]


def _of_options(options: Options) -> list[Finding]:
    if options.quarantine != "off":
        return []
    breaks = "after a failover or restart two owners may hold one lease for up to one ttl"
    return [Finding("quarantine=off in the URL", breaks, "remove it: auto is the default", _LEASES)]


def _version(sight: Sight, info: dict[str, str], _: Options) -> Iterator[Finding]:
    version = info.get("redis_version", "0")
    if _numbers(version) < OLDEST:
        breaks = "nothing is tested on it; commands may be missing"
        yield _finding(sight, f"version {version}", breaks, "upgrade to Redis 6.2 or later", _BOTH)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _eviction(sight: Sight, info: dict[str, str], _: Options) -> Iterator[Finding]:
    policy, limited = info.get("maxmemory_policy", ""), info.get("maxmemory", "0") != "0"
    fix = "CONFIG SET maxmemory-policy noeviction"
    if policy.startswith("allkeys"):
        breaks = "with its memory full the server throws away leases and records of done steps"
        yield _finding(sight, f"maxmemory-policy {policy}", breaks, fix, _BOTH)
    elif policy.startswith("volatile") and limited:
        breaks = "with its memory full the server throws away leases, which expire and so may be evicted"
        yield _finding(sight, f"maxmemory-policy {policy}", breaks, fix, _LEASES)


def _persistence(sight: Sight, info: dict[str, str], _: Options) -> Iterator[Finding]:
    if info.get("aof_enabled") != "1":
        breaks = "a crash loses records of done steps: they run again"
        fix = "CONFIG SET appendonly yes, CONFIG SET appendfsync always; or keep markers elsewhere"
        yield _finding(sight, "appendonly no", breaks, f"{fix} (COORDINATE_MARKERS_URL)", _MARKERS)
        return
    if info.get("aof_last_write_status", "ok") != "ok":
        breaks = "the server refuses writes: it cannot write its append-only file"
        yield _finding(sight, "aof_last_write_status err", breaks, "see its log and its disk", _BOTH)
    if sight.config is None:
        breaks = "whether `done` is durable cannot be seen, so it is not promised"
        yield _finding(sight, "CONFIG is hidden", breaks, "ACL SETUSER <user> +config|get", _MARKERS)
        return
    for name, wanted in (("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")):
        if (found := sight.config.get(name, wanted)) != wanted:
            breaks = "a crash loses the last seconds of records that were acknowledged: those steps run again"
            yield _finding(sight, f"{name} {found}", breaks, f"CONFIG SET {name} {wanted}", _MARKERS)


def _replicas(sight: Sight, info: dict[str, str], _: Options) -> Iterator[Finding]:
    replicas = int(info.get("connected_slaves", "0"))
    config = sight.config or {}
    needed, lag = (int(config.get(f"min-replicas-{name}", "-1")) for name in ("to-write", "max-lag"))
    if replicas and needed == 0:
        breaks = "a primary that is cut off from its replicas grants and renews for as long as clients reach it"
        fix = f"CONFIG SET min-replicas-to-write 1, CONFIG SET min-replicas-max-lag {LONG_LAG}"
        yield _finding(sight, "min-replicas-to-write 0", breaks, fix, _LEASES)
    version = info.get("redis_version", "0")
    if needed > 0 and OLDEST <= _numbers(version) < HEEDS_REPLICAS:
        name = f"min-replicas-to-write {needed} on version {version}"
        breaks = "it is ignored in scripts: a primary that is cut off from its replicas goes on granting and renewing"
        yield _finding(sight, name, breaks, "upgrade to Redis 6.2.7 or later", _LEASES)
    if needed > 0 and lag == 0:
        breaks = "min-replicas-to-write is ignored: a primary that is cut off goes on granting"
        yield _finding(sight, "min-replicas-max-lag 0", breaks, f"CONFIG SET min-replicas-max-lag {LONG_LAG}", _LEASES)
    if needed > 0 and lag > LONG_LAG:
        breaks = f"an isolated primary grants for {lag} s more, and after a failover new owners wait as much longer"
        fix = f"CONFIG SET min-replicas-max-lag {LONG_LAG}"
        yield _finding(sight, f"min-replicas-max-lag {lag}", breaks, fix, _LEASES)
    yield from _laggards(sight, info, replicas)


def _laggards(sight: Sight, info: dict[str, str], replicas: int) -> Iterator[Finding]:
    for index in range(replicas):
        replica = dict(part.partition("=")[::2] for part in info.get(f"slave{index}", "").split(","))
        state, lag = replica.get("state", "unknown"), replica.get("lag", "0")
        if state != "online" or int(lag) > LONG_LAG:
            name = f"replica {replica.get('ip')}:{replica.get('port')}: {state}, {lag} s behind"
            breaks = "promoted, it would lack the newest leases and records; `done` waits for it in vain"
            yield _finding(sight, name, breaks, "see its log and the network to it", _BOTH)


def _emptiness(sight: Sight, info: dict[str, str], options: Options) -> Iterator[Finding]:
    if info.get("aof_enabled") == "1":
        return
    snapshots = (sight.config or {}).get("save", "unknown")
    if options.quarantine == "auto" and not snapshots:
        breaks = "a restart comes back empty and is taken for a first use: two holders for up to one ttl"
        fix = "quarantine=strict in the URL, or CONFIG SET appendonly yes"
        yield _finding(sight, "quarantine=auto without persistence", breaks, fix, _LEASES)
    elif options.quarantine != "off" and snapshots not in {"", "unknown"}:
        breaks = "a restart from a snapshot older than the longest lease waits too short: two holders for up to one ttl"
        yield _finding(sight, "snapshots only", breaks, "CONFIG SET appendonly yes", _LEASES)


def _cluster(sight: Sight, info: dict[str, str], _: Options) -> Iterator[Finding]:
    if info.get("cluster_enabled") != "1":
        return
    if not sight.in_cluster:
        breaks = "most names live on other nodes, where this URL does not go"
        yield _finding(sight, "a node of a Redis Cluster", breaks, "use redis+cluster:// in the URL", _BOTH)
    if sight.cluster.get("cluster_state", "ok") != "ok":
        breaks = "some slots have no primary: their leases and records cannot be reached"
        yield _finding(sight, f"cluster_state {sight.cluster['cluster_state']}", breaks, "see CLUSTER SHARDS", _BOTH)
    if info.get("connected_slaves", "0") == "0":
        breaks = "when it dies, its part of the leases and records is out of reach, or lost"
        yield _finding(sight, "no replica", breaks, "redis-cli --cluster add-node ... --cluster-slave", _BOTH)


def _time(sight: Sight, _info: dict[str, str], _options: Options) -> Iterator[Finding]:
    if abs(sight.ahead) > CLOCK:
        name = f"its clock is {abs(sight.ahead):.0f} s {'ahead of' if sight.ahead > 0 else 'behind'} ours"
        breaks = "when it is set right, leases end early or late; tokens that were lost may come again"
        yield _finding(sight, name, breaks, "run NTP on both hosts", _BOTH)


def _finding(sight: Sight, setting: str, breaks: str, fix: str, concerns: tuple[str, ...]) -> Finding:
    return Finding(f"{sight.place}: {setting}", breaks, fix, concerns)


def _permitted(line: Line, *words: bytes) -> Reply:
    """Return a reply; None where the server forbids or does not know the command."""
    try:
        return line.ask(*words)
    except ResponseError as error:
        if is_momentary(error):
            raise
        return None


def _fields(reply: Reply) -> dict[str, str] | None:
    if not isinstance(reply, bytes):
        return None
    pairs = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {key: value for key, colon, value in pairs if colon}


def _pairs(replies: list[Reply]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for reply in replies:
        if not isinstance(reply, list):
            return None
        words = [word.decode(errors="replace") for word in cast("list[bytes]", reply)]
        found |= zip(words[::2], words[1::2], strict=True)
    return found


def _clock(line: Line) -> float:
    before = time.time()
    reply = _permitted(line, b"TIME")
    after = time.time()
    if not isinstance(reply, list):
        return 0.0
    seconds, micros = (int(cast(bytes, part)) for part in reply)
    return seconds + micros / 1e6 - (before + after) / 2
