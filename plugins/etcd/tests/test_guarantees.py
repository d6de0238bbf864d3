"""What docs/explanation/guarantees-etcd.md says of roles and times, done as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.stacks.etcd import etcd

from coordinate import connect
from coordinate.errors import BackendUnavailable, LeaseLost
from coordinate.testing import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stacks.etcd import Etcd

    from coordinate_etcd.backend import EtcdBackend

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "guarantees-etcd.md"


def test_the_smallest_role_is_enough_and_a_revoked_server_lease_is_told(tmp_path: Path) -> None:
    """The commands of the page; then all that a lease, a wait and a marker need, and nothing beside the prefix."""
    commands = re.findall(r"^\$ etcdctl (.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 4
    with etcd(tmp_path) as ensemble:
        for command in (
            "user add root:root",
            "user grant-role root root",
            *commands,
            "user add stranger:p",
            "auth enable",
        ):
            ensemble.control(*command.split())
        url = f"etcd://coordinate:PASSWORD@{ensemble.members[0].address}"
        with connect(f"{url}/apps", ttl=6) as ours, connect(f"{url}/apps", ttl=6) as theirs:
            lease, waiter = ours.lease("site").acquire(10), theirs.lease("site")
            with waiter.contest(timeout=20) as contest:
                assert not contest.attempt()
                assert not contest.attempt()
                markers = ours.markers("site")
                markers.claim(lease, ours.backend.store_id)
                markers.done(markers.begin("migrate", "r1"))
                assert lease.release()
                while not contest.attempt():
                    contest.sleep()
            assert ours.backend.holder("site") is not None
            listed = ensemble.control("--user", "coordinate:PASSWORD", "lease", "list").stdout.split()
            numbers = [word for word in listed if re.fullmatch(r"[0-9a-f]{12,}", word)]
            (used,) = [number for number in numbers if "/leases/site" in hanging_on(ensemble, number)]
            denied = ensemble.control("--user", "stranger:p", "lease", "revoke", used, check=False)
            assert "permission denied" in denied.stderr
            waiter.check()
            ensemble.control("--user", "root:root", "lease", "revoke", used)
            eventually(lambda: lost(waiter.check), what="the loss")
        with connect(f"{url}/other") as beside, pytest.raises(BackendUnavailable, match="role lacks"):
            beside.backend.ping()


def hanging_on(ensemble: Etcd, number: str) -> str:
    """Return the keys of a server lease, as etcdctl tells them."""
    return ensemble.control("--user", "root:root", "lease", "timetolive", "--keys", number).stdout


def lost(check: Callable[[], None]) -> bool:
    """Return whether a lease may not be relied on any more."""
    try:
        check()
    except LeaseLost:
        return True
    return False


def test_a_lease_is_never_granted_for_longer_than_asked(tmp_path: Path, opened: Callable[..., EtcdBackend]) -> None:
    """Members with long elections make server leases longer; the grant says what was asked for."""
    from coordinate.testing.lease_port import granted

    with etcd(tmp_path, 1, "--election-timeout", "2000") as ensemble:
        client = opened(ensemble.url)
        assert granted(client, "short", ttl=1.0).ttl == 1.0
        (session,) = client._leases.sessions._by_length.values()
        assert session.until - client._leases.sessions._clock.now() > 2.0
