"""What holders live through: renewal of many by one request, interrupted connections, their own death, forks."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from kazoo.client import KazooClient
from zookeeper_ensemble import Ensemble, Server, standalone

from coordinate import connect
from coordinate.errors import LeaseInDoubt
from coordinate.testing import eventually, opener
from coordinate.testing.lease_port import granted
from coordinate.types import Gone, LossReason, Renewed
from coordinate_zookeeper.backend import ZooKeeperBackend

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

MANY = 200
_FORK = multiprocessing.get_context("fork")


def received(server: Server) -> int:
    """Return how many packets a server has received so far; the question is one of them."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as wire:
        wire.sendall(b"srvr")
        answer = b"".join(iter(lambda: wire.recv(4096), b"")).decode()
    found = re.search(r"Received: (\d+)", answer)
    assert found is not None, answer
    return int(found[1])


def test_many_leases_are_renewed_by_one_request_and_a_removed_node_is_noticed(tmp_path: Path) -> None:
    """The first renewal looks at each node, later ones ask once for all; whose node was deleted is told so."""
    with standalone(tmp_path) as ensemble, opener(ZooKeeperBackend, ensemble.url()) as clients:
        backend, (server,) = clients(), ensemble.servers
        grants = [granted(backend, f"many/{number}", ttl=60.0) for number in range(MANY)]
        assert all(isinstance(answer, Renewed) for answer in backend.renew(grants))
        before = received(server)
        for _ in range(5):
            assert all(isinstance(answer, Renewed) for answer in backend.renew(grants))
        assert received(server) - before <= 10
        operator = KazooClient(ensemble.hosts)
        operator.start(timeout=15)
        line = "/test/contract/leases/many%2F7"
        (node,) = operator.get_children(line)
        operator.delete(f"{line}/{node}")
        operator.stop()
        operator.close()
        eventually(lambda: backend.renew(grants)[7] == Gone(LossReason.EXPIRED), what="the loss")
        answers = backend.renew(grants)
        assert [number for number, answer in enumerate(answers) if not isinstance(answer, Renewed)] == [7]


def test_a_suspended_lease_fails_its_checks_and_comes_back_with_its_session(tmp_path: Path) -> None:
    """The server is away for less than the session: nothing may begin meanwhile, and the same grant goes on."""
    with (
        standalone(tmp_path) as ensemble,
        connect(ensemble.url(), ttl=30) as coordinator,
        coordinator.lease("doubted") as lease,
    ):
        token = lease.token
        ensemble.each(Server.kill)
        eventually(lambda: not lease.held, what="doubt")
        with pytest.raises(LeaseInDoubt):
            lease.check()
        assert lease.alive
        ensemble.each(Server.start)
        eventually(lambda: lease.held, what="the end of the doubt")
        assert lease.token == token
        assert lease.lost is None


def _hold(url: str, ready: Connection) -> None:
    with connect(url, ttl=2.0) as coordinator, coordinator.lease("killed") as lease:
        ready.send(lease.token)
        signal.pause()


def test_a_killed_holder_is_replaced_when_its_session_ends(zookeeper: Ensemble, chroot: str) -> None:
    """Not before its ttl could have ended, not long after, with a greater token."""
    ours, theirs = _FORK.Pipe(duplex=False)
    holder = _FORK.Process(target=_hold, args=(zookeeper.url(chroot), theirs), daemon=True)
    holder.start()
    assert ours.poll(30)
    token = ours.recv()
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    with connect(zookeeper.url(chroot), ttl=2.0) as coordinator, coordinator.lease("killed").acquire(30) as lease:
        assert lease.token > token
        assert time.monotonic() - killed < 2 * 2.0 + 2.5
    holder.join()


def _use(backend: ZooKeeperBackend, answer: Connection) -> None:
    answer.send(granted(backend, "in the child").token)
    backend.close()


def test_a_forked_child_has_a_session_of_its_own_and_leaves_the_parents_alone(zookeeper: Ensemble, chroot: str) -> None:
    """It neither hangs on threads that it does not have nor ends what the parent holds."""
    with opener(ZooKeeperBackend, zookeeper.url(chroot)) as clients:
        backend = clients()
        grant = granted(backend, "in the parent")
        ours, theirs = _FORK.Pipe(duplex=False)
        child = _FORK.Process(target=_use, args=(backend, theirs), daemon=True)
        child.start()
        assert ours.poll(30), "the child hangs"
        assert ours.recv() > grant.token
        child.join(30)
        assert child.exitcode == 0
        assert isinstance(backend.renew([grant])[0], Renewed)
