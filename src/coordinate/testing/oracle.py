"""A recorder of what a fleet did, and a checker that knows nothing of how it did it.

Every process appends what it believed and did to one file, with a clock that all processes of a host share; when all
is over, `violations` reads the whole and says which promises were broken. Use it for your own store, or your own
program, under whatever faults you can think of::

    history = History(folder / "history", who="replica-1")
    with lease:
        since = history.now()
        ...
        history.tenure(lease.name, lease.token, since, history.now())

What it can show: that a run broke a promise. What it cannot: that no run would.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from coordinate._clock import SYSTEM, Clock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Fact: TypeAlias = dict[str, object]
"""One line of a history: ``t`` (nanoseconds), ``pid``, ``who``, ``what``, and what belongs to it."""

_DONE = "done"


class Tenure(NamedTuple):
    """One time in which somebody believed to hold a name.

    Args:
        name: of the lease.
        token: it was granted with.
        since: first instant of the belief, on a clock that all share.
        until: last instant of it.
        who: for people.
    """

    name: str
    token: int
    since: float
    until: float
    who: str = ""


class History:
    """Appends facts to a file that many processes share; each line is one write, so lines never mix.

    Args:
        path: the file; made at the first fact.
        who: how this process is called in it.
        clock: shared by all who write.
    """

    def __init__(self, path: Path, who: str = "", clock: Clock = SYSTEM) -> None:
        self.path = path
        self.who = who
        self._clock = clock

    def now(self) -> float:
        """Return the seconds on the shared clock."""
        return self._clock.now()

    def note(self, what: str, **fields: object) -> None:
        """Append a fact, kept by the kernel even if this process is killed the next instant."""
        fact = {"t": round(self.now() * 1e9), "pid": os.getpid(), "who": self.who, "what": what, **fields}
        target = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(target, (json.dumps(fact) + "\n").encode())
        finally:
            os.close(target)

    def tenure(self, name: str, token: int, since: float, until: float) -> None:
        """Note that a name was believed to be held from ``since`` to ``until``."""
        self.note("tenure", name=name, token=token, since=since, until=until)

    def claimed(self, scope: str, token: int) -> None:
        """Note that a claim was accepted; call it after the answer."""
        self.note("claimed", scope=scope, token=token)

    def recorded(self, scope: str, step: str, revision: str, state: str, token: int) -> None:
        """Note that a marker was accepted; call it after the answer. ``state``: a `MarkerState`'s value."""
        self.note("recorded", scope=scope, step=step, revision=revision, state=state, token=token)

    def reset(self, scope: str, step: str, revision: str) -> None:
        """Note that an operator resets a marker; call it before."""
        self.note("reset", scope=scope, step=step, revision=revision)

    def facts(self) -> list[Fact]:
        """Return everything that was noted by anybody, in order of time; a last line that was cut off is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return sorted((json.loads(line) for line in lines), key=lambda fact: fact["t"])


def tenures(facts: Iterable[Fact]) -> list[Tenure]:
    """Return the tenures among facts."""
    fields = Tenure._fields
    found = [fact for fact in facts if fact["what"] == "tenure"]
    return [Tenure(**{name: fact[name] for name in fields if name in fact}) for fact in found]  # type: ignore[arg-type]


def overlaps(held: Iterable[Tenure]) -> list[str]:
    """Return the pairs that held one name at the same instant."""
    found = []
    for _, group in itertools.groupby(sorted(held, key=lambda each: (each.name, each.since)), lambda each: each.name):
        longest: Tenure | None = None
        for tenure in group:
            if longest is not None and tenure.since < longest.until:
                found.append(f"both held {tenure.name}: {longest} and {tenure}")
            longest = tenure if longest is None or tenure.until > longest.until else longest
    return found


def stale_tokens(tokens: Iterable[tuple[str, int]]) -> list[str]:
    """Return which tokens of a name, in order of time, are not greater than all before."""
    found, greatest = [], dict[str, int]()
    for name, token in tokens:
        before = greatest.get(name)
        if before is not None and token <= before:
            found.append(f"{name}: token {token} after {before}")
        greatest[name] = token if before is None else max(before, token)
    return found


def done_twice(facts: Iterable[Fact]) -> list[str]:
    """Return the steps that were accepted as done more than once without a reset in between."""
    found, done = [], dict[tuple[object, ...], Fact]()
    for fact in facts:
        key = (fact.get("scope"), fact.get("step"), fact.get("revision"))
        if fact["what"] == "reset":
            done.pop(key, None)
        elif fact["what"] == "recorded" and fact["state"] == _DONE:
            if key in done:
                found.append(f"done twice: {done[key]} and {fact}")
            done[key] = fact
    return found


def regressions(facts: Iterable[Fact]) -> list[str]:
    """Return the markers that went back: to a smaller token, or from done to anything else."""
    found, last = [], dict[tuple[object, ...], Fact]()
    for fact in facts:
        key = (fact.get("scope"), fact.get("step"), fact.get("revision"))
        if fact["what"] == "reset":
            last.pop(key, None)
        elif fact["what"] == "recorded":
            before = last.get(key)
            older = before is not None and int(str(fact["token"])) < int(str(before["token"]))
            undone = before is not None and before["state"] == _DONE and fact["state"] != _DONE
            if older or undone:
                found.append(f"went back: {before} and then {fact}")
            last[key] = fact
    return found


def violations(facts: Iterable[Fact]) -> list[str]:
    """Return every broken promise that the facts, in order of time, show."""
    known = list(facts)
    held = tenures(known)
    grants = [(each.name, each.token) for each in sorted(held, key=lambda each: each.since)]
    claims = [(f"claim of {fact['scope']}", int(str(fact["token"]))) for fact in known if fact["what"] == "claimed"]
    return [*overlaps(held), *stale_tokens(grants), *stale_tokens(claims), *done_twice(known), *regressions(known)]
