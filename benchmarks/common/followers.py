"""Processes that wait until somebody says that a step is done."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from benchmarks.common.contenders import fresh_name
from benchmarks.common.fleet import Fleet
from benchmarks.common.table import Table

if TYPE_CHECKING:
    from benchmarks.common.fleet import Member
    from benchmarks.common.plan import Plan
    from benchmarks.common.server import Server

_SETTLE = 0.5
ALL_WITHIN = 30.0


class News(ABC):
    """One way to tell and to wait."""

    label: ClassVar[str]

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.name = name

    @abstractmethod
    def prepare(self) -> None:
        """Do what the teller does before there is anything to tell."""

    @abstractmethod
    def tell(self) -> None:
        """Say that it is done."""

    @abstractmethod
    def follow(self) -> None:
        """Return when it is done."""


class Audience(NamedTuple):
    """One process tells, the others follow."""

    kind: type[News]
    port: int
    name: str

    def __call__(self, member: Member) -> None:
        """Live the life of one process."""
        news = self.kind(self.port, self.name)
        if member.number == 0:
            news.prepare()
            member.ready()
            member.wait_for_go()
            member.mark(0)
            news.tell()
        else:
            member.wait_for_the_first()
            member.ready()
            news.follow()
            member.mark(0)
        member.linger()


class Round(NamedTuple):
    """One measurement: seconds until the last one knew, until each did, and requests while nothing happened."""

    last: float
    each: list[float]
    idle: float


def measure(server: Server, kinds: tuple[type[News], ...], plan: Plan) -> list[Table]:
    """Return the table; the first kind is ours, the second one the limit."""
    table = Table(
        f"{plan.waiters} followers notice that a step is done",
        f"best of {plan.rounds} interleaved rounds by the last one; idle requests of all rounds, {plan.idle:g} s each.",
    )
    rounds: dict[type[News], list[Round]] = {kind: [] for kind in kinds}
    for _ in range(plan.rounds):
        for kind in kinds:
            rounds[kind].append(_round(server, kind, plan))
    best = {kind: min(found) for kind, found in rounds.items()}
    for kind, found in best.items():
        idle = sum(each.idle for each in rounds[kind])
        table.add(
            kind.label,
            p50_ms=statistics.median(found.each) * 1000,
            all_ms=found.last * 1000,
            ratio=found.last / best[kinds[1]].last,
            idle_requests=idle,
        )
        if kind is kinds[0]:
            table.gates["no request while nothing happens"] = idle == 0
    return [table]


def _round(server: Server, kind: type[News], plan: Plan) -> Round:
    with Fleet(plan.waiters + 1, Audience(kind, server.port, fresh_name("followers"))) as fleet:
        fleet.wait_until_ready()
        time.sleep(_SETTLE)
        watching = server.watching()
        time.sleep(plan.idle)
        idle = watching()
        fleet.go.open()
        if fleet.wait_until_marked(0, ALL_WITHIN) <= plan.waiters:
            message = f"{kind.label}: a follower knew nothing after {ALL_WITHIN:g} s"
            raise RuntimeError(message)
        told, *known = fleet.marked(0)
    each = [at - told for at in known]
    return Round(max(each), each, idle)
