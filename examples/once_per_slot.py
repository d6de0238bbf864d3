"""Run a job once per schedule, on whichever of the hosts is first; runs of one job never overlap.

usage: python once_per_slot.py --every SECONDS NAME -- COMMAND...

Start it on every host at the same time, by cron or a timer:

    0 * * * *  COORDINATE_URL=redis://redis:6379/0 python once_per_slot.py --every 3600 invoices -- ./send-invoices

The slot (the hour, here) is the revision: the first host that gets the lease runs the command, the others wait and get
its exit code, a host that comes late finds it done. If the runner dies, another one runs the command again, so it has
to bear that; if the command fails, nobody tries again in this slot. A slot that all have missed is not made up for.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import signal
import sys
import time
from typing import TYPE_CHECKING

from coordinate import connect
from coordinate.errors import CoordinateError, Interrupted, StepFailed
from coordinate.steps import Budget, Outcome, Plan, Step, run

if TYPE_CHECKING:
    from coordinate import Coordinator
    from coordinate.steps import StepContext

KEPT = 20
"""Slots whose records are kept, for people."""


def slot_now(every: float) -> str:
    """Return the slot that this host's clock is in; that clock has also started us, so a slow one does not matter."""
    start = dt.datetime.fromtimestamp(time.time() // every * every, dt.UTC)
    return start.isoformat(timespec="seconds").replace("+00:00", "Z")


def run_job(coordinator: Coordinator, name: str, slot: str, command: list[str], timeout: float) -> Outcome:
    """Run the command once for the slot, over all hosts.

    Raises:
        StepFailed: it failed, here or elsewhere.
        CoordinateError: see `coordinate.steps.run`.
    """

    def work(context: StepContext) -> None:
        """Stopped, with all that it has started, before anybody else may run."""
        context.run(command, name=name)

    markers = coordinator.markers(f"jobs/{name}")
    known = sorted(record.revision for record in markers.view().records)
    if known and slot < known[-1]:
        # Started hours too late, from a queue or a clock gone wrong.
        return Outcome.ALREADY_DONE
    plan = Plan(f"jobs/{name}", slot, [Step("run", work, timeout=timeout)], Budget(failures=1, backoff=math.inf))
    outcome = run(plan, coordinator, timeout=timeout)
    if outcome is Outcome.RAN:
        for old in known[:-KEPT]:
            markers.reset("run", old)
    return outcome


def main() -> int:
    """Return the command's exit code, wherever it ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=float, required=True, help="seconds between slots")
    parser.add_argument("--slot", help="instead of the one of now")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for the command")
    parser.add_argument("name")
    parser.add_argument("command", nargs="+")
    wanted = parser.parse_args()
    slot = wanted.slot or slot_now(wanted.every)
    with connect() as coordinator:
        signal.signal(signal.SIGTERM, lambda number, _: coordinator.interrupt(number))
        try:
            outcome = run_job(coordinator, wanted.name, slot, wanted.command, wanted.timeout)
        except Interrupted as stop:
            return 128 + stop.signum
        except StepFailed as failed:
            print(failed, file=sys.stderr)
            return failed.record.exit_code if failed.record is not None else failed.exit_code
        except CoordinateError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    print(f"{wanted.name} {slot}: {outcome.value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
