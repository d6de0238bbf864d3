"""What is measured, each as a ratio to the kernel's own limit in the same run."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import statistics
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common.fleet import Fleet, NotReadyError
from benchmarks.common.processors import cpu_seconds
from benchmarks.common.table import Table
from benchmarks.on_files.followers import Audience, BareInotify, Marker, News
from benchmarks.on_files.ways import ALL, BareFlock, Coordinate, Way

if TYPE_CHECKING:
    from benchmarks.common.fleet import Member
    from benchmarks.common.plan import Plan

_HOLD = 0.001
_SETTLE = 0.5
_ALL_WITHIN = 40.0
_numbers = itertools.count()


class Crew(NamedTuple):
    """The first process holds until told, or killed; the others wait, hold for a moment, and give it on."""

    kind: type[Way]
    folder: str
    name: str

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        way = self.kind(self.folder, self.name)
        if member.number:
            member.wait_for_the_first()
            member.ready()
        way.acquire()
        member.mark(0)
        if member.number:
            time.sleep(_HOLD)
        else:
            member.ready()
            member.wait_for_go()
        member.mark(1)
        way.release()
        member.linger()


def _fresh(what: str) -> str:
    return f"{what}{next(_numbers)}"


def pairs(folder: str, plan: Plan) -> Table:
    """Acquire and release, one thread, nobody else."""
    table = Table("acquire + release, one thread", f"best of {plan.rounds} interleaved rounds; ratio to filelock.")
    opened = [kind(folder, _fresh("pairs")) for kind in ALL]
    best = dict.fromkeys(opened, 0.0)
    for _ in range(plan.rounds):
        for way in opened:
            count, began = 0, time.perf_counter()
            while (took := time.perf_counter() - began) < plan.seconds:
                way.acquire()
                way.release()
                count += 1
            best[way] = max(best[way], count / took)
    peer = best[opened[-1]]
    for way, rate in best.items():
        table.add(way.label, **{"pairs/s": rate, "us/pair": 1e6 / rate, "ratio": rate / peer})
    return table


def handover(folder: str, plan: Plan) -> Table:
    """Each of many waiting processes gets it once."""
    table = Table(
        f"hand-over to each of {plan.waiters} waiting processes, each holds {_HOLD * 1000:g} ms once",
        f"best of {plan.rounds} interleaved rounds by total; ratio of totals to bare flock.",
    )
    found: dict[type[Way], list[tuple[float, list[float]]]] = {kind: [] for kind in ALL}
    for _ in range(plan.rounds):
        for kind in ALL:
            found[kind].append(_handed(folder, kind, plan.waiters))
    limit = min(found[BareFlock])[0]
    for kind, rounds in found.items():
        total, each = min(rounds)
        overlaps = sum(gap < 0 for _, gaps in rounds for gap in gaps)
        p50 = statistics.median(each) * 1000
        table.add(
            kind.label, waits=kind.waits, total_ms=total * 1000, ratio=total / limit, p50_ms=p50, overlaps=overlaps
        )
    table.gates["each waiter got it, and no two at once"] = table.rows[Coordinate.label]["overlaps"] == 0
    return table


def _handed(folder: str, kind: type[Way], waiters: int) -> tuple[float, list[float]]:
    with Fleet(waiters + 1, Crew(kind, folder, _fresh("handover"))) as fleet:
        fleet.wait_until_ready()
        time.sleep(_SETTLE)
        fleet.go.open()
        if fleet.wait_until_marked(1, _ALL_WITHIN) <= waiters:
            message = f"{kind.label}: not everybody had it within {_ALL_WITHIN:g} s"
            raise NotReadyError(message)
        holds = sorted(zip(fleet.marked(0), fleet.marked(1), strict=True))
    each = [after[0] - before[1] for before, after in itertools.pairwise(holds)]
    return holds[-1][1] - holds[0][1], each


def idle(folder: str, plan: Plan) -> Table:
    """Blocked waiters cost no processor time."""
    table = Table(f"{plan.waiters} blocked waiters, watched for {plan.idle:g} s", "CPU: percent of one processor.")
    for kind in ALL:
        with Fleet(plan.waiters + 1, Crew(kind, folder, _fresh("idle"))) as fleet:
            fleet.wait_until_ready()
            time.sleep(_SETTLE)
            before = sum(map(cpu_seconds, fleet.pids[1:]))
            time.sleep(plan.idle)
            after = sum(map(cpu_seconds, fleet.pids[1:]))
        table.add(kind.label, waits=kind.waits, **{"waiters_CPU_%": (after - before) / plan.idle * 100})
    return table


def takeover(folder: str, plan: Plan) -> Table:
    """The holder is killed; when has the next one got it?"""
    table = Table(f"takeover from a killed holder, {plan.phases} times", "late: after the kill, in turns.")
    late: dict[type[Way], list[float]] = {kind: [] for kind in ALL}
    for _ in range(plan.phases):
        for kind in ALL:
            with Fleet(2, Crew(kind, folder, _fresh("takeover"))) as fleet:
                fleet.wait_until_ready()
                time.sleep(0.1)
                killed = time.monotonic()
                os.kill(fleet.pids[0], signal.SIGKILL)
                fleet.wait_until_marked(0, 10)
                late[kind].append(fleet.marked(0)[1] - killed)
    for kind, found in late.items():
        table.add(kind.label, median_ms=statistics.median(found) * 1000, worst_ms=max(found) * 1000)
    table.gates["each killed holder was replaced"] = len(late[Coordinate]) == plan.phases
    return table


def followers(folder: str, plan: Plan) -> Table:
    """Processes notice that a marker says done."""
    table = Table(
        f"{plan.waiters} followers notice that a step is done",
        f"best of {plan.rounds} interleaved rounds by the last one; ratio to bare inotify.",
    )
    kinds: tuple[type[News], ...] = (Marker, BareInotify)
    found: dict[type[News], list[list[float]]] = {kind: [] for kind in kinds}
    for _ in range(plan.rounds):
        for kind in kinds:
            with Fleet(plan.waiters + 1, Audience(kind, folder, _fresh("news"))) as fleet:
                fleet.wait_until_ready()
                time.sleep(_SETTLE)
                fleet.go.open()
                if fleet.wait_until_marked(0, _ALL_WITHIN) <= plan.waiters:
                    message = f"{kind.label}: a follower knew nothing after {_ALL_WITHIN:g} s"
                    raise NotReadyError(message)
                told, *known = fleet.marked(0)
            found[kind].append([at - told for at in known])
    limit = min(map(max, found[BareInotify]))
    for kind, rounds in found.items():
        best = min(rounds, key=max)
        median = statistics.median(best) * 1000
        table.add(kind.label, p50_ms=median, all_ms=max(best) * 1000, ratio=max(best) / limit)
    return table


def many(folder: str, plan: Plan) -> Table:
    """Many leases in one process, kept by one thread."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(plan.leases, (hard - 200) // 2)
    table = Table(f"{count:,} leases in one process, ttl 30 s", "two descriptors each; renewed every 5 s.")
    way, threads = Coordinate(folder, _fresh("many")), threading.active_count()
    began = time.monotonic()
    leases = [way.coordinator.lease(f"many/{number}").acquire() for number in range(count)]
    took = time.monotonic() - began
    busy = time.process_time()
    time.sleep(plan.watched)
    used = (time.process_time() - busy) / plan.watched * 100
    lost = sum(not lease.held for lease in leases)
    threads = threading.active_count() - threads
    table.add("coordinate", acquired_s=took, lost=lost, **{"CPU_%": used}, threads=threads)
    for lease in leases:
        lease.release()
    way.coordinator.close()
    table.gates["0 lost, renewed by one thread"] = lost == 0 and threads <= 1
    return table


ORDER = (pairs, handover, takeover, idle, followers, many)
