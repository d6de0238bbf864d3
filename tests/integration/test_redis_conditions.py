"""Servers in a bad way: each has a clear error of its own, and the same backend goes on when it is over."""

from __future__ import annotations

import contextlib
import functools
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.backends.redis import RedisBackend
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from coordinate.testing.lease_port import granted
from coordinate.types import Granted, Renewed
from coordinate.url import parse
from tests.servers import PATIENCE, RedisServer, free_port, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LEASE = "t:{l:job}:lease"
_NOBODYS_PORT = 1
"""Below those that `free_port` gives."""


class Stage(NamedTuple):
    """A server that may be ruined, and its administrator."""

    server: RedisServer
    admin: redis.Redis


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return a running server whose scripts count as stuck after 0.1 s."""
    with redis_server(tmp_path, "--busy-reply-threshold", "100") as server, server.client() as admin:
        yield Stage(server, admin)


def opened(url: str) -> RedisBackend:
    """Return a backend that waits for answers: each of these servers gives one, however busy the machine is."""
    return RedisBackend.open(parse(url + "?quarantine=off"), StoreSettings("t", PATIENCE))


def run_out_of_memory(stage: Stage) -> None:
    """Leave no room for another byte."""
    stage.admin.config_set("maxmemory", 1)


def give_memory(stage: Stage) -> None:
    """Take the limit away."""
    stage.admin.config_set("maxmemory", 0)


def demote(stage: Stage) -> None:
    """Make it the replica of nobody that is there, nor comes: a port of ours may be another test's a moment later."""
    stage.admin.replicaof("127.0.0.1", _NOBODYS_PORT)


def demote_silently(stage: Stage) -> None:
    """Make it a replica that refuses to answer from what it had."""
    stage.admin.config_set("replica-serve-stale-data", "no")
    demote(stage)


def promote(stage: Stage) -> None:
    """Make it a primary again."""
    stage.admin.replicaof("NO", "ONE")


def want_replicas(stage: Stage) -> None:
    """Refuse writes without a replica."""
    stage.admin.config_set("min-replicas-to-write", 1)


def want_none(stage: Stage) -> None:
    """Accept them again."""
    stage.admin.config_set("min-replicas-to-write", 0)


def fill(stage: Stage) -> None:
    """Let nobody in besides the administrator."""
    stage.admin.config_set("maxclients", 1)


def make_room(stage: Stage) -> None:
    """Let others in again."""
    stage.admin.config_set("maxclients", 100)


def lose_the_disk(stage: Stage) -> None:
    """Let a snapshot fail: its file's name is taken by a folder."""
    (stage.server.folder / "dump.rdb").mkdir()
    stage.admin.config_set("save", "3600 1")
    stage.admin.bgsave()
    eventually(lambda: stage.admin.info()["rdb_last_bgsave_status"] == "err", within=PATIENCE, what="the failure")


def find_the_disk(stage: Stage) -> None:
    """Let a snapshot succeed."""
    (stage.server.folder / "dump.rdb").rmdir()
    stage.admin.bgsave()
    eventually(lambda: stage.admin.info()["rdb_last_bgsave_status"] == "ok", within=PATIENCE, what="the snapshot")


def get_stuck(stage: Stage) -> None:
    """Run somebody's script that does not end."""

    def loop() -> None:
        # Sent once: a driver that tries again would block the server anew after it was freed.
        with contextlib.suppress(redis.RedisError), stage.server.client() as client:
            client.set_retry(Retry(NoBackoff(), 0))
            client.eval("while true do end", 0)

    threading.Thread(target=loop, daemon=True).start()
    eventually(lambda: "BUSY" in _refusal(stage), within=PATIENCE, what="the script")


def _refusal(stage: Stage) -> str:
    """Return what the server says instead of an answer; empty if it answers."""
    try:
        stage.admin.ping()
    except redis.RedisError as error:
        return str(error) or repr(error)
    return ""


def unstick(stage: Stage) -> None:
    """Do what the error says. That only marks the script: it ends when it next looks, and is refused for until then."""
    stage.admin.script_kill()
    eventually(lambda: not _refusal(stage), within=PATIENCE, what="the script's end")


def occupy(stage: Stage) -> None:
    """Use the lease's key for something else."""
    stage.admin.set(LEASE, "something else")


def vacate(stage: Stage) -> None:
    """Delete it."""
    stage.admin.delete(LEASE)


def set_password(stage: Stage) -> None:
    """Want a password, and end the sessions that had none."""
    stage.admin.config_set("requirepass", "canary")
    stage.admin.execute_command("AUTH", "canary")
    stage.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def drop_password(stage: Stage) -> None:
    """Want none again."""
    stage.admin.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        (run_out_of_memory, give_memory, "no memory left: raise maxmemory"),
        (demote, promote, "this is a replica: name the primary"),
        (demote_silently, promote, "this is a replica that has lost its primary"),
        (want_replicas, want_none, "too few replicas are connected"),
        (fill, make_room, "the server is full: raise maxclients"),
        (lose_the_disk, find_the_disk, "cannot save to its disk"),
        (get_stuck, unstick, "SCRIPT KILL ends it"),
        (occupy, vacate, "something else uses a key"),
        (set_password, drop_password, "check user name and password"),
    ],
)
def test_each_condition_has_its_error_and_the_backend_goes_on_afterwards(
    stage: Stage, spoil: Callable[[Stage], None], mend: Callable[[Stage], None], words: str
) -> None:
    """On a new connection and on one that was open before; nothing is left behind by the refused request."""
    fresh, used = opened(stage.server.url), opened(stage.server.url)
    used.ping()
    spoil(stage)
    for backend in (fresh,) if spoil is fill else (fresh, used):
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match=words) as refused:
                backend.acquire("job", mint(), 30)
            assert "canary" not in "".join(traceback.format_exception(refused.value))
    mend(stage)
    for backend in (fresh, used):
        grant = granted(backend, "job")
        assert backend.renew([grant]) == [Renewed(30)]
        assert backend.release(grant)
        backend.close()


def test_a_full_memory_does_not_end_what_is_held(stage: Stage) -> None:
    """Renewing and giving back need no memory, so a full server loses no lease by itself."""
    backend = opened(stage.server.url)
    grant = granted(backend, "job")
    run_out_of_memory(stage)
    assert backend.renew([grant]) == [Renewed(30)]
    assert backend.release(grant)
    backend.close()


def test_a_loading_server_is_named_and_waited_for(tmp_path: Path) -> None:
    """A restart with much data: an error until it has read it, then everything is there."""
    slow = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    with redis_server(tmp_path, *slow) as server, ThreadPoolExecutor(1) as pool:
        backend = opened(server.url)
        grant = granted(backend, "job")
        with server.client() as admin:
            admin.eval("for i = 1, 6000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end", 0)
            admin.save()
        restarting = pool.submit(server.restart)
        seen: list[str] = []

        def loading() -> bool:
            try:
                backend.ping()
            except BackendUnavailable as error:
                seen.append(str(error))
            return any("is loading its data" in said for said in seen)

        eventually(loading, within=PATIENCE, what="the reply LOADING")
        restarting.result(timeout=30)
        assert backend.renew([grant]) == [Renewed(30)]
        backend.close()


def _text(reply: bytes | dict[str, str]) -> str:
    """Return a reply as text; some versions of the driver take it apart."""
    return reply.decode() if isinstance(reply, bytes) else " ".join(":".join(item) for item in reply.items())


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Return two servers of one Redis Cluster, each with half of the slots."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()

    def arguments() -> tuple[str, ...]:
        return ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))

    with redis_server(folders[0], *arguments()) as one, redis_server(folders[1], *arguments()) as other:
        yield one, other


def test_a_plain_url_to_a_cluster_names_the_scheme(pair: tuple[RedisServer, RedisServer]) -> None:
    """A node without slots, one whose slots are elsewhere, and one that has them all."""
    one, other = pair
    backend = opened(one.url)
    with one.client() as first, other.client() as second:
        with pytest.raises(BackendUnavailable, match="Cluster"):
            backend.acquire("job", mint(), 30)
        first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        second.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        bus = second.config_get("cluster-port")["cluster-port"]
        first.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        for client in (first, second):
            state = functools.partial(client.execute_command, "CLUSTER", "INFO")
            eventually(lambda state=state: "cluster_state:ok" in _text(state()), within=PATIENCE, what="the cluster")
        said = []
        for number in range(20):
            with contextlib.suppress(BackendUnavailable):
                assert isinstance(backend.acquire(f"job-{number}", mint(), 30), Granted)
                continue
            with pytest.raises(BackendUnavailable) as refused:
                backend.acquire(f"job-{number}", mint(), 30)
            said.append(str(refused.value))
    assert said
    assert all("redis+cluster://" in text for text in said), said
    backend.close()


def test_a_database_that_is_not_there_is_named(stage: Stage) -> None:
    """Sixteen by default."""
    with pytest.raises(BackendUnavailable, match="fewer databases"):
        opened(stage.server.url.replace("/0", "/99")).ping()


def test_counters_of_idle_names_expire_after_a_week(stage: Stage) -> None:
    """Not sooner, or tokens would rest on the clock alone; not never, or names without end would fill the server."""
    backend = opened(stage.server.url)
    week = 7 * 24 * 3600
    grant = granted(backend, "job")
    counter = "t:{l:job}:token"
    assert week - 5 < stage.admin.ttl(counter) <= week
    stage.admin.expire(counter, 60)
    assert backend.renew([grant]) == [Renewed(30)]
    assert week - 5 < stage.admin.ttl(counter) <= week
    backend.release(grant)
    stage.admin.expire(counter, 60)
    backend.break_lease("job")
    assert week - 5 < stage.admin.ttl(counter) <= week
    left = {key for key in stage.admin.scan_iter("t:*") if stage.admin.ttl(key) == -1}
    assert all(key.endswith(b":incarnation") for key in left)
    backend.close()
