"""Crash takeover, see ``benchmarks/common/takeover.py``, on ZooKeeper.

A third process watches the lease's line with nothing but kazoo; late is what goes beyond the instant at which it is
told that the dead holder's node is gone. The server tells both of them, in no order.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common import takeover
from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import Fleet, NotReadyError
from benchmarks.on_zookeeper import ways
from benchmarks.on_zookeeper.server import known

if TYPE_CHECKING:
    from benchmarks.common.fleet import Member
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from benchmarks.common.takeover import Case
    from zookeeper_ensemble import Ensemble

_WITNESS = 2
_NOTES = "late: after a bare watch was told that the node is gone; a negative one was told first."
_TOLD_FIRST = 0.1
"""Seconds by which one of two watchers may be told before the other."""


def measure(ensemble: Ensemble, plan: Plan) -> list[Table]:
    """Return the table."""
    port = known(ensemble).port
    kinds = (ways.Coordinate,)
    return takeover.measure(
        takeover.Measured(kinds, lambda case: _late(port, case), lambda _: 1.3, _NOTES, _TOLD_FIRST), plan
    )


class Witnessed(NamedTuple):
    """A holder, a waiter, and one that watches what the server does."""

    pair: takeover.Pair

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        if member.number != _WITNESS:
            self.pair(member)
            return
        member.wait_for_the_first()
        client = ways.client(self.pair.port, 10.0)
        line = f"/coordinate/bench/leases/{self.pair.name}"
        (first, *_) = sorted(client.get_children(line), key=lambda child: child[-10:])
        gone = threading.Event()
        client.exists(f"{line}/{first}", watch=lambda _: gone.set())
        member.ready()
        gone.wait()
        member.mark(1)
        member.linger()


def _late(port: int, case: Case) -> float:
    pair = takeover.Pair(case.kind, port, fresh_name("takeover"), case.ttl)
    with Fleet(3, Witnessed(pair)) as fleet:
        os.kill(takeover.until(fleet, case.phase), signal.SIGKILL)
        at = takeover.replaced(fleet, 2 * case.ttl)
        deadline = time.monotonic() + 5
        while not (told := fleet.marked(1)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not told:
            message = "the bare watch was told nothing"
            raise NotReadyError(message)
    return at - told[0]
