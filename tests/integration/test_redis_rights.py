"""The smallest rights of a user on the server: enough for everything, and not one of them too many."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.backends.redis.failures import RIGHTS
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import (
    Capability,
    Claim,
    Grant,
    Held,
    MarkerRecord,
    MarkerState,
    Owner,
    Renewed,
    Topic,
    Unknown,
)
from coordinate.url import parse
from tests.servers import RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate.backend import Watch

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "guarantees-redis.md"
WORDS = RIGHTS.replace("<namespace>", "t").split()
COMMANDS = [word for word in WORDS if word.startswith("+")]
OPTIONAL = {"+info"}
"""Without it something is missing that a test below names; nothing fails."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server with one replica, so that what needs replicas is asked for, too."""
    with (
        redis_server(tmp_path_factory.mktemp("primary")) as primary,
        redis_server(tmp_path_factory.mktemp("replica"), "--replicaof", f"127.0.0.1 {primary.port}") as replica,
        replica.client() as client,
    ):
        eventually(lambda: client.info()["master_link_status"] == "up", what="the replica")
        yield primary


def as_user(server: RedisServer, words: list[str], options: str = "") -> RedisBackend:
    """Return a backend whose user has the given rights and whose server is empty."""
    with server.client() as client:
        client.flushall()
        # A server that has run a script once grants by its hash; the rights to load it have to suffice, too.
        client.script_flush()
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *words)
    url = f"redis://app:pw@127.0.0.1:{server.port}/0{options}"
    return RedisBackend.open(parse(url), StoreSettings("t", 1.0))


def everything(backend: RedisBackend) -> None:
    """Do all that the port can, each branch of each script; raise what was refused."""
    owner, second, third = mint(), mint(), mint()
    watch = backend.watch()
    backend.ping()
    first = granted(backend, "job", owner)
    assert granted(backend, "job", owner).token == first.token
    assert isinstance(backend.acquire("job", second, 30, queue=watch), Held)
    assert isinstance(backend.acquire("job", third, 30, queue=watch), Held)
    backend.withdraw("job", third)
    renewed = backend.renew([first])[0]
    assert isinstance(renewed, Renewed), renewed
    assert backend.release(first)
    eventually(lambda: Topic("lease", "job", second.nonce) in watch.drain(), what="the turn")
    assert granted(backend, "job", second).token > first.token
    gone = backend.renew([first])[0]
    assert not isinstance(gone, Unknown), gone
    assert backend.holder("job") is not None
    assert [lease.name for lease in backend.leases()] == ["job"]
    backend.break_lease("job")
    _markers(backend, owner, watch)
    assert backend.release(Grant("job", 1, "nobody", 30)) is False
    watch.close()


def _markers(backend: RedisBackend, owner: Owner, watch: Watch) -> None:
    watch.add(Topic("markers", "site"))
    backend.claim("site", Claim(7, owner))
    backend.claim("site", Claim(7, owner))
    for state in (MarkerState.IN_PROGRESS, MarkerState.DONE):
        backend.put_marker("site", MarkerRecord("migrate", "r1", state, 7), 7)
    eventually(watch.drain, what="the change")
    backend.notify(Topic("markers", "site"))
    assert backend.markers("site").claim is not None
    assert backend.scopes() == ["site"]
    assert backend.delete_marker("site", "migrate", "r1")
    watch.remove(Topic("markers", "site"))
    watch.add(Topic("markers", "other"))


def test_the_rights_that_errors_advise_are_enough(server: RedisServer) -> None:
    """With WAIT for replicas, with failover safety; an administrator's CONFIG is not needed."""
    for durability in ("none", "one", "all"):
        backend = as_user(server, WORDS, f"?durability={durability}")
        everything(backend)
        assert Capability.FAILOVER in backend.capabilities
        assert backend.describe()["version"]
        backend.close()


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - OPTIONAL))
def test_without_any_one_command_something_is_refused_and_the_error_advises_it(
    server: RedisServer, command: str
) -> None:
    """So none is asked for in vain; given the right, the same backend goes on."""
    backend = as_user(server, [*WORDS, "-" + command[1:]], "?durability=one")
    with pytest.raises((BackendUnavailable, AssertionError)) as refused:
        everything(backend)
    # A renewal that is refused is Unknown for its lease, in the server's words.
    assert re.search(r"ACL SETUSER <user> ~|Unknown\(why=.The user executing the script", str(refused.value))
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", command)
        client.flushall()
    everything(backend)
    backend.close()


@pytest.mark.parametrize("pattern", ["resetkeys", "resetchannels"])
def test_without_keys_or_channels_the_error_advises_them(server: RedisServer, pattern: str) -> None:
    """Both are patterns of the namespace."""
    backend = as_user(server, [*WORDS, pattern], "?durability=one")
    with pytest.raises(BackendUnavailable, match=r"ACL SETUSER <user> ~<namespace>:\* &<namespace>:\*"):
        everything(backend)
    backend.close()


def test_a_user_reaches_no_key_or_channel_of_other_namespaces(server: RedisServer) -> None:
    """The patterns are no wider than the namespace."""
    as_user(server, WORDS).close()
    url = parse(f"redis://app:pw@127.0.0.1:{server.port}/0")
    other = RedisBackend.open(url, StoreSettings("t2", 1.0))
    with pytest.raises(BackendUnavailable, match="ACL SETUSER"):
        other.acquire("job", mint(), 30)
    with pytest.raises(BackendUnavailable, match="ACL SETUSER"):
        other.watch()
    other.close()


def test_a_server_that_hides_info_promises_less_and_says_so(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Managed servers do: everything works, but safety across failover is not declared; one warning per backend."""
    backend = as_user(server, [*WORDS, "-info"])
    with caplog.at_level(logging.WARNING, "coordinate"):
        everything(backend)
    warnings = [record.message for record in caplog.records if "hides its INFO" in record.message]
    assert len(warnings) == 1
    assert "+info" in warnings[0]
    assert Capability.FAILOVER not in backend.capabilities
    assert Capability.DURABLE_MARKERS not in backend.capabilities
    backend.close()


def test_another_database_needs_select_and_nothing_else(server: RedisServer) -> None:
    """The default one does not."""
    as_user(server, WORDS).close()
    url = parse(f"redis://app:pw@127.0.0.1:{server.port}/3")
    backend = RedisBackend.open(url, StoreSettings("t", 1.0))
    with pytest.raises(BackendUnavailable, match=r"(?i)select"):
        backend.ping()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "+select")
    everything(backend)
    backend.close()


def test_the_documented_rights_are_these() -> None:
    """What people copy is what is tested."""
    text = PAGE.read_text(encoding="utf-8")
    block = re.search(r"ACL SETUSER coordinate (.*?)\n```", text, re.DOTALL)
    assert block is not None
    words = block[1].replace("\\\n", " ").split()
    assert words[:2] == ["on", "'>password'"]
    assert [word.strip("'").replace("coordinate:", "t:") for word in words[2:]] == WORDS
