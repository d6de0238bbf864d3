"""Rounds of renewals on Redis: what one answer proves of which lease."""

from __future__ import annotations

from coordinate._identity import mint
from coordinate.backends.redis.beliefs import Belief, Proof
from coordinate.backends.redis.node import Bundle, call
from coordinate.backends.redis.rounds import Round, Rounds
from coordinate.types import Grant, Renewed


def grants(count: int) -> tuple[Grant, ...]:
    """Return grants of two lengths."""
    return tuple(Grant(f"job/{number}", number, f"nonce-{number}", 10.0 + number % 2) for number in range(count))


def beliefs(of: tuple[Grant, ...]) -> list[Belief]:
    """Return a belief for each, from when it was granted."""
    return [Belief(grant.token, mint(), grant.ttl, Proof(b"first life", 1.0)) for grant in of]


def test_an_exception_is_not_proven_by_its_fellows_renewal_neither_then_nor_later() -> None:
    """Else it would be restored on a server that never had it, after its holder's time."""
    of = grants(4)
    believed = beliefs(of)
    halves = [Bundle([0, 1], call((b"a",))), Bundle([2, 3], call((b"b",)))]
    asked = Round(of, halves, believed)
    asked.prove(0, Proof(b"second life", 5.0), {})
    asked.prove(1, Proof(b"second life", 5.0), {3: 0})
    assert [belief.proof.sent for belief in believed] == [5.0, 5.0, 5.0, 1.0]
    asked.prove(0, Proof(b"third life", 9.0), {1: 0})
    asked.prove(1, Proof(b"third life", 9.0), {3: 0})
    assert [belief.proof.sent for belief in believed] == [9.0, 5.0, 9.0, 1.0]
    assert believed[1].proof.incarnation == b"second life"
    asked.prove(0, Proof(b"third life", 12.0), {})
    asked.prove(0, Proof(b"third life", 13.0), {})
    assert [belief.until for belief in believed] == [23.0, 24.0, 19.0, 12.0]


def test_only_the_very_same_tuple_is_the_same_round() -> None:
    """A list may have changed, and an equal tuple may be of other objects."""
    made: list[object] = []

    def prepare(of: object) -> Round:
        made.append(of)
        assert isinstance(of, (tuple, list))
        return Round(of, [], [None] * len(of))

    rounds, one = Rounds(prepare), grants(3)
    assert rounds.find(one) is rounds.find(one)
    assert rounds.find(one).renewed == [Renewed(10.0), Renewed(11.0), Renewed(10.0)]
    assert len(made) == 1
    rounds.find(grants(3))
    rounds.find(list(one))
    rounds.find(list(one))
    assert len(made) == 4
    for _ in range(9):
        rounds.find(grants(2))
    rounds.find(one)
    assert len(made) == 14
