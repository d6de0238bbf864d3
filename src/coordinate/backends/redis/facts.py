"""What a server says about itself: for people, and for the one promise that depends on its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from redis.exceptions import NoPermissionError, ResponseError

from coordinate.backends.redis.failures import is_momentary

if TYPE_CHECKING:
    from coordinate.backends.redis.node import Line
    from coordinate.backends.redis.topology import Topology

_ASK = "asking for the server's facts"


def read(server: Topology) -> list[dict[str, str]]:
    """Return of each primary the fields of INFO, and of the settings for the append-only file; none that are forbidden.

    Raises:
        BackendUnavailable: no answer of one of them.
    """
    return server.everywhere(_ASK, _read)


def _read(line: Line) -> dict[str, str]:
    try:
        text = cast(bytes, line.ask(b"INFO")).decode(errors="replace")
    except ResponseError as error:
        if not isinstance(error, NoPermissionError) and "unknown command" not in str(error):
            raise
        text = ""
    pairs = (each.partition(":") for each in text.splitlines() if not each.startswith("#"))
    return {key: value for key, colon, value in pairs if colon} | _settings(line)


def _settings(line: Line) -> dict[str, str]:
    try:
        reply = line.ask(b"CONFIG", b"GET", b"*appendfsync*")
    except ResponseError as error:
        if is_momentary(error):
            raise
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
