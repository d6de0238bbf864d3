"""The reference store against a model of a few dictionaries: any order of operations, found by hypothesis."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordinate._identity import mint
from coordinate.backend import Backend, StoreSettings
from coordinate.backends.memory import MemoryBackend
from coordinate.errors import AlreadyDone, StaleToken
from coordinate.testing import FakeClock
from coordinate.testing.kit import record
from coordinate.types import Claim, Gone, Grant, Granted, Held, MarkerRecord, MarkerState, Owner, Renewed
from coordinate.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = itertools.count()
TTL = 10.0
WHO = st.integers(0, 2)
NAMES = st.sampled_from(["a", "b"])
TOKENS = st.integers(1, 6)
STEPS = st.sampled_from(["one", "two"])


def is_over(old: MarkerRecord) -> bool:
    """Return whether a record tells of the end of its attempt; all records of this model are of the same one."""
    return old.state is not MarkerState.IN_PROGRESS


class Port(RuleBasedStateMachine):
    """Three clients, two names, one scope."""

    @initialize()
    def open(self) -> None:
        """Begin with an empty store."""
        self.clock = FakeClock()
        settings = StoreSettings(clock=self.clock)
        url = parse(f"memory://model-{next(_NUMBERS)}")
        self.clients: list[Backend] = [MemoryBackend.open(url, settings) for _ in range(3)]
        self.owners: list[Owner] = [mint() for _ in self.clients]
        self.held: dict[str, tuple[Grant, float]] = {}
        self.past: dict[str, Grant] = {}
        self.top: dict[str, int] = {}
        self.claim: Claim | None = None
        self.records: dict[str, MarkerRecord] = {}

    def present(self, name: str) -> Grant | None:
        """Return the grant that the model says is held."""
        grant, expires = self.held.get(name, (None, 0.0))
        return grant if self.clock.now() < expires else None

    @rule(seconds=st.sampled_from([1.0, TTL / 2, TTL]))
    def time_passes(self, seconds: float) -> None:
        """Leases grow older."""
        self.clock.advance(seconds)

    @rule(who=WHO, name=NAMES, floor=st.integers(0, 20), fresh=st.booleans())
    def acquire(self, who: int, name: str, floor: int, *, fresh: bool) -> None:
        """Granted to nobody else, with a greater token, or once more to its holder."""
        if fresh:
            self.owners[who] = mint()
        owner, present = self.owners[who], self.present(name)
        answer = self.clients[who].acquire(name, owner, TTL, floor=floor)
        if present is not None and present.nonce != owner.nonce:
            assert isinstance(answer, Held)
            assert answer.record is not None
            assert answer.record.token == present.token
            return
        assert isinstance(answer, Granted)
        if present is not None:
            assert answer.grant == present
        else:
            assert answer.grant.token > max(floor, self.top.get(name, 0))
        self.top[name] = answer.grant.token
        self.held[name] = (answer.grant, self.clock.now() + TTL)
        self.past[name] = answer.grant

    @rule(who=WHO, name=NAMES)
    def renew(self, who: int, name: str) -> None:
        """Exactly the present grant is renewed, by whichever connection."""
        last = self.past.get(name)
        if last is None:
            return
        (answer,) = self.clients[who].renew([last])
        if self.present(name) == last:
            assert isinstance(answer, Renewed)
            self.held[name] = (last, self.clock.now() + TTL)
        else:
            assert isinstance(answer, Gone)

    @rule(who=WHO, name=NAMES)
    def release(self, who: int, name: str) -> None:
        """True once, and only for the present grant."""
        last = self.past.get(name)
        if last is None:
            return
        assert self.clients[who].release(last) is (self.present(name) == last)
        if self.present(name) == last:
            del self.held[name]

    @rule(who=WHO, name=NAMES)
    def break_lease(self, who: int, name: str) -> None:
        """Whatever there was is over; the token is raised."""
        raised = self.clients[who].break_lease(name)
        assert raised > self.top.get(name, 0)
        self.top[name] = raised
        self.held.pop(name, None)

    @rule(who=WHO, token=TOKENS)
    def register(self, who: int, token: int) -> None:
        """Only a greater token, or the same owner's again, takes the claim."""
        claim = Claim(token, self.owners[who])
        old = self.claim
        allowed = old is None or token > old.token or (token, claim.owner.nonce) == (old.token, old.owner.nonce)
        if self.accepted(allowed, lambda: self.clients[who].claim("site", claim), StaleToken):
            self.claim = claim

    @rule(who=WHO, token=TOKENS, step=STEPS, state=st.sampled_from(list(MarkerState)), finished=st.sampled_from([1, 2]))
    def put(self, who: int, token: int, step: str, state: MarkerState, finished: int) -> None:
        """Only under the claimed token, nothing but itself over what is done, and no progress over a later end."""
        written = record(step, state, token=token, finished=float(finished))
        old = self.records.get(step)
        claimed = self.claim is not None and self.claim.token == token
        free = old is None or old.state is not MarkerState.DONE or old == written
        error = AlreadyDone if claimed else StaleToken
        late = old is not None and state is MarkerState.IN_PROGRESS and old.token == token and is_over(old)
        if self.accepted(claimed and free, lambda: self.clients[who].put_marker("site", written, token), error):
            self.records[step] = old if old is not None and late else written

    @rule(who=WHO, step=STEPS)
    def delete(self, who: int, step: str) -> None:
        """An operator needs no token."""
        assert self.clients[who].delete_marker("site", step, "r1") is (self.records.pop(step, None) is not None)

    def accepted(self, allowed: bool, act: Callable[[], object], error: type[Exception]) -> bool:  # noqa: FBT001
        """Do what is allowed, or find it refused; return whether it was done."""
        try:
            act()
        except error:
            assert not allowed
            return False
        assert allowed
        return True

    @invariant()
    def the_store_shows_what_the_model_knows(self) -> None:
        """To every client, holders and records alike."""
        for client in self.clients:
            for name in ("a", "b"):
                shown, present = client.holder(name), self.present(name)
                assert (shown.token if shown else None) == (present.token if present else None)
            view = client.markers("site")
            assert (view.claim.token if view.claim else None) == (self.claim.token if self.claim else None)
            assert {found.step: found for found in view.records} == self.records


Port.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestPort = Port.TestCase
