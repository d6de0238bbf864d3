"""From what the database says to what a site is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coordinate.errors import BackendUnavailable, LeaseLost
from frappe_bootstrap import settings
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.inspection import Answer, Kind, classify, unreachable
from frappe_bootstrap.waiting import Stop


def read(answer: dict[str, Any]) -> Answer:
    """Return what the shim's words are taken for."""
    return msgspec.convert(answer, Answer)


def test_a_finished_site_is_healthy(healthy: dict[str, Any]) -> None:
    """Its apps come from SQL."""
    state = classify(read(healthy))
    assert (state.kind, state.apps, str(state)) == (Kind.HEALTHY, ("frappe", "demo_app"), "healthy")


def test_only_a_missing_folder_is_absence(healthy: dict[str, Any]) -> None:
    """Whether a database of that name exists is a question of its own."""
    answer = {"folder": False, "config": "missing", "root": {"ok": True, "database": True}}
    assert classify(read(answer)).kind is Kind.ABSENT
    assert classify(read(answer)).database is True
    denied = classify(read({**answer, "root": {"ok": False, "errno": 1045, "error": "denied"}}))
    assert (denied.database, denied.root_error) == (None, "denied")
    assert classify(read(healthy)).database is None


@pytest.mark.parametrize("result", ["missing", "empty", "bad", "incomplete"])
def test_a_folder_without_a_good_config_is_half_made(healthy: dict[str, Any], result: str) -> None:
    """Each way is named."""
    state = classify(read({**healthy, "config": result}))
    assert state.kind is Kind.HALF_MADE
    assert result in state.reason


@pytest.mark.parametrize("number", [1044, 1045, 1698, 2003, 2013, 1040])
def test_a_refused_login_is_no_evidence_of_absence(healthy: dict[str, Any], number: int) -> None:
    """operating-frappe 4: wrong password, missing user or wrong host."""
    state = classify(read({**healthy, "login": {"ok": False, "errno": number, "error": "words"}}))
    assert state.kind is Kind.UNREACHABLE
    assert str(number) in state.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"defaults": False, "tables": 12}, "12 tables"),
        ({"apps": None}, "installed apps"),
        ({"apps": ["demo_app"]}, "installed apps"),
        ({"administrator": False}, "Administrator"),
    ],
)
def test_each_stage_of_a_killed_creation_is_half_made(
    healthy: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    """real-frappe 5: also where the framework's own commands say that all is well."""
    state = classify(read({**healthy, "login": {**healthy["login"], **change}}))
    assert state.kind is Kind.HALF_MADE
    assert words in state.reason


def test_a_missing_database_is_half_made(healthy: dict[str, Any]) -> None:
    """1049 comes after a good login."""
    login = {"ok": False, "errno": 1049, "error": "Unknown database"}
    assert classify(read({**healthy, "login": login})).kind is Kind.HALF_MADE


@pytest.mark.parametrize(("number", "waits"), [(2003, True), (2013, True), (1040, True), (0, True), (1045, False)])
def test_a_server_that_refuses_a_login_has_answered(number: int, waits: bool) -> None:  # noqa: FBT001
    """Waiting helps against a server that is down, not against a wrong password."""
    reason = unreachable(read({"server": {"ok": False, "errno": number, "error": "words"}}))
    assert (reason == "words") is waits


@pytest.mark.parametrize(("number", "raised"), [(2003, True), (1045, False)])
def test_a_server_that_is_down_is_no_state_of_a_site(
    environ: dict[str, str],
    healthy: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    raised: bool,  # noqa: FBT001
) -> None:
    """An outage ends with 69 and may pass; a refused login is a state, and ends with 81."""
    bench = Bench(settings.load(environ), Stop(), {})
    answer = {**healthy, "login": {"ok": False, "errno": number, "error": "words"}}
    monkeypatch.setattr(bench, "inspect", lambda **_: read(answer))
    if raised:
        with pytest.raises(BackendUnavailable, match="words"):
            bench.state()
    else:
        assert bench.state().kind is Kind.UNREACHABLE


class Context:
    """A step under a grant; its commands do nothing."""

    def __init__(self, token: int) -> None:
        self.lease = self
        self.token = token
        self.is_lost = False

    def run(self, *_: object, **__: object) -> str:
        """Run nothing."""
        return ""

    def check(self) -> None:
        """Raise as a lost lease does."""
        if self.is_lost:
            message = "gone"
            raise LeaseLost(message)


def test_a_look_is_repeated_unless_nobody_can_have_changed_anything(
    environ: dict[str, str], healthy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a look after our own last command, under the very grant of that command, is good enough."""
    bench, looks = Bench(settings.load(environ), Stop(), {}), []
    monkeypatch.setattr(bench, "inspect", lambda **_: looks.append(0) or read(healthy))
    context: Any = Context(7)
    bench.state()
    bench.known_state(context)
    assert len(looks) == 2, "before the lease, anybody may have led"
    bench.run(context, "migrate")
    bench.known_state(context)
    assert len(looks) == 3, "a command changes the site"
    assert bench.known_state(context).kind is Kind.HEALTHY
    assert len(looks) == 3, "nobody else may"
    later: Any = Context(9)
    bench.known_state(later)
    assert len(looks) == 4, "somebody led in between"
    context.is_lost = True
    with pytest.raises(LeaseLost):
        bench.known_state(context)
