"""What operators and the store do behind our back: compaction, a full disk quota, members removed, interruptions."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest
from tests.servers import proxy
from tests.stacks.etcd import etcd

from coordinate._identity import mint
from coordinate.errors import BackendUnavailable
from coordinate.testing import eventually
from coordinate.testing.kit import record
from coordinate.testing.lease_port import granted
from coordinate.testing.watch_port import woken
from coordinate.types import Claim, Granted, Renewed, Topic
from coordinate_etcd.ensemble import Ensemble
from coordinate_etcd.watch import EtcdWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.stacks.etcd import Etcd

    from coordinate_etcd.backend import EtcdBackend


def test_a_history_that_is_compacted_while_the_watch_is_cut_off_is_a_change(
    emptied: Etcd, opened: Callable[..., EtcdBackend]
) -> None:
    """What happened meanwhile is unknown, so whoever waits has to look; the watch goes on."""
    writer, topic = opened(emptied.url), Topic("markers", "site")
    with proxy(emptied.members[0].port) as between:
        watcher = opened(f"etcd://127.0.0.1:{between.port}", timeout=3.0)
        watch = watcher.watch()
        watch.add(topic)
        eventually(lambda: watch._interests[topic].number is not None, what="the watch")
        watch.drain()
        between.swallow_replies = True
        for _ in range(3):
            writer.notify(topic)
        revision = json.loads(emptied.control("get", "x", "-w", "json").stdout)["header"]["revision"]
        emptied.control("compact", str(revision))
        between.swallow_replies = False
        for connection in list(between._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        assert woken(watch, topic)
        eventually(lambda: watch._interests[topic].number is not None, what="the watch")
        watch.drain()
        writer.notify(topic)
        assert woken(watch, topic)
        watch.close()


def test_a_watch_that_begins_late_says_so(emptied: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """Somebody wrote between the look and the watch: etcd tells at which revision it began, and that is compared."""
    client = opened(emptied.url)
    grant = granted(client, "late")
    watch, topic = client.watch(), Topic("lease", "late", "nonce")
    looked = json.loads(emptied.control("get", "x", "-w", "json").stdout)["header"]["revision"]
    assert client.release(grant)
    watch.follow(topic, b"/t/leases/late", looked)
    assert woken(watch, topic)
    watch.close()


def test_followers_are_told_the_record_by_the_change_itself(
    emptied: Etcd, opened: Callable[..., EtcdBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ask for nothing; anything else that happens to the scope takes it back."""
    client, other = opened(emptied.url), opened(emptied.url)
    topic, done = Topic("markers", "site"), record(token=7)
    client.claim("site", Claim(7, mint()))
    watch = other.watch()
    assert isinstance(watch, EtcdWatch)
    watch.add(topic)
    # What is written before etcd has begun to watch is reported, not told.
    eventually(
        lambda: (interest := watch.followed(topic)) is not None and interest.number is not None, what="the watch"
    )
    asked: list[str] = []
    original = Ensemble.call

    def call(ensemble: Ensemble, what: str, *more: object) -> object:
        asked.append(what)
        return original(ensemble, what, *more)

    monkeypatch.setattr(Ensemble, "call", call)
    client.put_marker("site", done, 7)
    eventually(lambda: watch.news(topic).record == done, what="the record")
    assert asked == ["write a marker of 'site'"] * 2
    number = watch.news(topic).number
    client.claim("site", Claim(8, mint()))
    eventually(lambda: watch.news(topic).number > number, what="the claim")
    assert watch.news(topic).record is None
    watch.close()


def test_a_full_disk_quota_grants_nothing_and_takes_nothing(tmp_path: Path, opened: Callable[..., EtcdBackend]) -> None:
    """The alarm stops writes; what is held is renewed and given back, and the reason is named."""
    deadline = time.monotonic() + 20
    with etcd(tmp_path, 1, "--quota-backend-bytes", "300000") as ensemble:
        client = opened(ensemble.url)
        grant = granted(client, "held")
        while not ensemble.control("put", "filler", "x" * 100_000, check=False).returncode:
            assert time.monotonic() < deadline
        eventually(lambda: "NOSPACE" in ensemble.control("alarm", "list").stdout, what="the alarm")
        with pytest.raises(BackendUnavailable, match="disarm its alarm"):
            client.acquire("other", mint(), 30)
        assert client.renew([grant]) == [Renewed(grant.ttl)]
        assert client.release(grant)
        assert client.holder("held") is None


def test_a_member_that_is_removed_is_left(three: Etcd, opened: Callable[..., EtcdBackend]) -> None:
    """The one in use is taken out of the ensemble: its clients go on with the others, and so do their watches."""
    client, topic = opened(three.url), Topic("markers", "site")
    grant = granted(client, "kept")
    watch = client.watch()
    watch.add(topic)
    eventually(lambda: watch._interests[topic].number is not None, what="the watch")
    rows = json.loads(three.control("member", "list", "-w", "json").stdout)["members"]
    (number,) = [row["ID"] for row in rows if row["name"] == three.members[0].name]
    # A young ensemble refuses: its members have to have been connected for five seconds.
    eventually(lambda: not three.control("member", "remove", f"{number:x}", check=False).returncode, what="removal")
    eventually(lambda: isinstance(client.renew([grant])[0], Renewed), what="the renewal")
    watch.drain()
    client.notify(topic)
    assert woken(watch, topic)
    watch.close()


def test_a_grant_whose_floor_was_not_recorded_is_completed_by_its_owner_or_never_answered(
    emptied: Etcd, opened: Callable[..., EtcdBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is cut off between the grant and the raise of ``base``: the token that others see obeys the floor."""
    client, other, owner, floor = opened(emptied.url), opened(emptied.url), mint(), 10**9

    def cut_off(*_: object) -> bool:
        raise BackendUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(client._leases, "_raised", cut_off)
        with pytest.raises(BackendUnavailable):
            client.acquire("half", owner, 30, floor=floor)
    seen = other.holder("half")
    assert seen is not None
    assert seen.token > floor
    answer = client.acquire("half", owner, 30, floor=floor)
    assert isinstance(answer, Granted)
    assert answer.grant.token == seen.token
    assert client.release(answer.grant)
    assert granted(other, "half").token > seen.token


def test_a_role_that_is_taken_away_is_an_outage_not_a_holder(
    tmp_path: Path, opened: Callable[..., EtcdBackend]
) -> None:
    """Nobody is told that somebody else holds it; the watch reports, and what was held is unknown."""
    with etcd(tmp_path) as ensemble:
        for command in (
            "user add root:root",
            "user grant-role root root",
            "role add app",
            "role grant-permission app --prefix=true readwrite /app/t/",
            "user add app:pass",
            "user grant-role app app",
            "auth enable",
        ):
            ensemble.control(*command.split())
        client = opened(f"etcd://app:pass@{ensemble.members[0].address}/app")
        grant = granted(client, "held")
        ensemble.control("--user", "root:root", "user", "revoke-role", "app", "app")
        assert type(client.renew([grant])[0]).__name__ == "Unknown"
        with pytest.raises(BackendUnavailable, match="role lacks"):
            client.acquire("held", mint(), 30)
        ensemble.control("--user", "root:root", "user", "grant-role", "app", "app")
        eventually(lambda: isinstance(client.renew([grant])[0], Renewed), what="the renewal")


def test_a_lease_that_ran_out_while_nobody_renewed_it_is_gone(
    emptied: Etcd, opened: Callable[..., EtcdBackend]
) -> None:
    """As after a suspend: the server lease is over, the renewal says so, a release ends nobody else's, tokens grow."""
    client, other = opened(emptied.url), opened(emptied.url)
    grant = granted(client, "paused", ttl=1.0)
    eventually(lambda: isinstance(other.acquire("paused", mint(), 1.0), Granted), what="the end of the lease")
    assert type(client.renew([grant])[0]).__name__ == "Gone"
    assert not client.release(grant)
    later = other.holder("paused")
    assert later is not None
    assert later.token > grant.token
