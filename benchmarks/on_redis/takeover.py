"""Crash takeover, see ``benchmarks/common/takeover.py``, on Redis.

The holder is stopped first, so that it cannot renew any more, then the server is asked how long the key still lives,
then the holder is killed.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from benchmarks.common import takeover
from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import Fleet, NotReadyError
from benchmarks.on_redis import ways

if TYPE_CHECKING:
    from benchmarks.common.contenders import Way
    from benchmarks.common.plan import Plan
    from benchmarks.common.table import Table
    from benchmarks.common.takeover import Case
    from tests.servers import RedisServer

_STOPPED = 0.01
"""Seconds after which nothing of a stopped process is under way any more."""
_NOTES = "late: beyond what the server said, at the kill, that the key still lives. Renewed where the library renews."


def measure(running: RedisServer, plan: Plan) -> list[Table]:
    """Return the table."""
    kinds = (ways.OURS, *(ways.WAITING_PEERS if plan.peers else ()))
    measured = takeover.Measured(kinds, lambda case: _late(running, case), _reach, _NOTES)
    return takeover.measure(measured, plan)


def _reach(kind: type[Way]) -> float:
    # The last phases lie beyond the ttl of a holder that renews, and within the life of one that does not.
    return 1.3 if kind in {ways.OURS, ways.PythonRedisLock} else 0.85


def _late(running: RedisServer, case: Case) -> float:
    name = fresh_name("takeover")
    pair = takeover.Pair(case.kind, running.port, name, case.ttl)
    with Fleet(2, pair) as fleet, running.client() as admin:
        holder = takeover.until(fleet, case.phase)
        os.kill(holder, signal.SIGSTOP)
        time.sleep(_STOPPED)
        asked = time.monotonic()
        left = admin.pttl(case.kind.key_of(name))
        os.kill(holder, signal.SIGKILL)
        if left < 0:
            message = f"{case.phase:.2f} s after it was granted there was no key any more"
            raise NotReadyError(message)
        return takeover.replaced(fleet, left / 1000) - (asked + left / 1000)
