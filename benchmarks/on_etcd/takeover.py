"""Crash takeover, see ``benchmarks/common/takeover.py``, on etcd.

A third process watches the lease's key with nothing but etcd's messages; late is what goes beyond the instant at which
it is told that the key is gone. The server tells both of them, in no order: whoever reads first may be some
milliseconds ahead.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common import takeover
from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import Fleet, NotReadyError
from benchmarks.on_etcd import ways
from benchmarks.on_etcd.server import known

if TYPE_CHECKING:
    from benchmarks.common.fleet import Member
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from benchmarks.common.takeover import Case
    from tests.stacks.etcd import Etcd

_WITNESS = 2
_NOTES = "late: after a bare watch of the key was told that it is gone; a negative one was told first."
_TOLD_FIRST = 0.05
"""Seconds by which one of two watchers may be told before the other."""


def measure(ensemble: Etcd, plan: Plan) -> list[Table]:
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
        from benchmarks.on_etcd.bare import Member as Bare

        from coordinate_etcd import messages

        member.wait_for_the_first()
        for event in Bare(self.pair.port).events(ways.key_of(self.pair.name)):
            if event is None:
                member.ready()
            elif event.type == messages.DELETE:
                member.mark(1)
                break
        member.linger()


def _late(port: int, case: Case) -> float:
    pair = takeover.Pair(case.kind, port, fresh_name("takeover"), case.ttl)
    with Fleet(3, Witnessed(pair)) as fleet:
        os.kill(takeover.until(fleet, case.phase), signal.SIGKILL)
        # A server lease is a second longer than ours, and the server looks twice a second.
        at = takeover.replaced(fleet, case.ttl + 2)
        deadline = time.monotonic() + 5
        while not (told := fleet.marked(1)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not told:
            message = "the bare watch was told nothing"
            raise NotReadyError(message)
    return at - told[0]
