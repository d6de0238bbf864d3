"""Three replicas, twenty random kill points, on each store: the main promise of the whole product."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.chaos.judge import Fleet
from tests.chaos.replica import STEPS
from tests.servers import redis_server

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20261123
_POINTS = [
    (kind, step, phase)
    for kind in ("kill", "group", "stop")
    for step in STEPS
    for phase in ("before", "inside", "after")
]
POINTS = random.Random(SEED).sample(_POINTS, 20)  # noqa: S311 -- reproducible choice, no secret


@pytest.fixture(scope="module", params=["redis", "file"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return a function that gives each run a store of its own."""
    folder = tmp_path_factory.mktemp("store")
    if request.param == "redis":
        with redis_server(folder) as server:
            numbers = iter(range(10**6))

            def fresh() -> str:
                # A flushed server per run: tokens and markers of earlier runs are gone, the process is reused.
                client = server.client()
                client.flushall()
                client.close()
                next(numbers)
                return server.url

            yield fresh
    else:
        numbers = iter(range(10**6))
        yield lambda: f"file://{folder}/{next(numbers)}"


@pytest.mark.parametrize("fault", POINTS, ids="-".join)
def test_every_run_ends_with_all_serving(store: object, fault: tuple[str, str, str], tmp_path: Path) -> None:
    """Each step is done once, tokens grow, nothing of a dead or deposed leader is alive when the next one leads."""
    assert callable(store)
    fleet = Fleet(store(), tmp_path, fault)
    fleet.judge(fleet.finish())


def test_a_fleet_that_nobody_hurts_has_one_leader(store: object, tmp_path: Path) -> None:
    """One term, four steps, three members serving."""
    assert callable(store)
    fleet = Fleet(store(), tmp_path)
    fleet.judge(fleet.finish())
    assert sum(line["what"] == "leading" for line in fleet.history()) == 1
