"""What a server says about itself: for people, and for the one promise that depends on its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from redis.exceptions import NoPermissionError

from coordinate.errors import BackendUnavailable

if TYPE_CHECKING:
    from coordinate.backends.redis.topology import Topology

_ASK = "asking for the server's facts"


def read(server: Topology) -> dict[str, str]:
    """Return the fields of INFO, and of the settings for the append-only file; none of those that are forbidden.

    Raises:
        BackendUnavailable: no answer.
    """
    try:
        text = cast(bytes, server.ask(_ASK, b"INFO")).decode(errors="replace")
    except BackendUnavailable as error:
        if not isinstance(error.__cause__, NoPermissionError) and "unknown command" not in str(error.__cause__):
            raise
        text = ""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {key: value for key, colon, value in pairs if colon} | _settings(server)


def _settings(server: Topology) -> dict[str, str]:
    try:
        reply = server.ask(_ASK, b"CONFIG", b"GET", b"*appendfsync*")
    except BackendUnavailable:
        # Hosted servers forbid CONFIG: then the setting is unknown, and nothing may be promised on it.
        return {}
    words = [word.decode(errors="replace") for word in cast("list[bytes]", reply)]
    return dict(zip(words[::2], words[1::2], strict=True))


def durable(info: dict[str, str]) -> bool:
    """Return whether an acknowledged write is on disk and stays there, as far as the server's settings say.

    The append-only file has to be on with ``appendfsync always`` and ``no-appendfsync-on-rewrite no``: with
    ``everysec`` an acknowledged ``done`` of the last second or two may be lost. Eviction must spare keys
    without expiry.
    """
    return (
        info.get("aof_enabled") == "1"
        and info.get("appendfsync") == "always"
        and info.get("no-appendfsync-on-rewrite") == "no"
        and not info.get("maxmemory_policy", "allkeys").startswith("allkeys")
    )


def described(info: dict[str, str]) -> dict[str, str]:
    """Return version, role, persistence and eviction policy in words."""
    aof = f"aof (appendfsync {info.get('appendfsync', 'unknown')})" if info.get("aof_enabled") == "1" else "no aof"
    saved = info.get("rdb_last_save_time", "unknown")
    return {
        "version": info.get("redis_version", "unknown"),
        "role": info.get("role", "unknown"),
        "persistence": f"{aof}, last snapshot {saved}",
        "eviction policy": info.get("maxmemory_policy", "unknown"),
    }
