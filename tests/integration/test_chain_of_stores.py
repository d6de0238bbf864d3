"""One volume taken from store to store, revision after revision, by nothing but another lease URL."""

from __future__ import annotations

import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.steps import Event, Outcome, Plan, Step, StepContext, run
from coordinate.testing import History, oracle
from tests.servers import redis_server
from tests.stacks.etcd import etcd

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "zookeeper" / "tests" / "support"))

from zookeeper_ensemble import standalone

if TYPE_CHECKING:
    from collections.abc import Iterator

TTL = 3.0
QUICK, LONG = 0.01, 1.5 * TTL
"""Seconds of a step. A long one says nothing for longer than its lease lasts unrenewed."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Return the stores in the order in which an operator tries them; the first one once more in the end."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
        second = stack.enter_context(etcd(tmp_path_factory.mktemp("etcd")))
        third = stack.enter_context(standalone(tmp_path_factory.mktemp("zookeeper")))
        files = tmp_path_factory.mktemp("leases")
        yield [first.url, second.url, third.url("/chain"), f"file://{files}", first.url]


class Volume:
    """The markers that stay where they are, and everything that was done to them."""

    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}/markers"
        self.history = History(folder / "history")

    def boot(self, url: str, revision: str, seconds: float) -> Outcome:
        """Start one replica of a revision: two steps."""

        def observe(event: Event) -> None:
            if event.kind == "leading":
                self.history.claimed("site", event.token)
            elif event.kind == "done":
                self.history.recorded("site", event.step, revision, "done", event.token)

        def work(context: StepContext) -> None:
            since = self.history.now()
            time.sleep(seconds)
            context.check()
            self.history.tenure("site", context.lease.token, since, self.history.now())

        plan = Plan("site", revision, [Step("migrate", work), Step("assets", work)])
        with connect(url, markers_url=self.url, ttl=TTL) as coordinator:
            return run(plan, coordinator, timeout=120, observer=observe)

    def judge(self) -> list[int]:
        """Hold the history against the promises; return the tokens of all leaders in order."""
        facts = self.history.facts()
        # One tenure for each step: two of one leader have one token.
        assert oracle.overlaps(oracle.tenures(facts)) == []
        assert oracle.violations(fact for fact in facts if fact["what"] != "tenure") == []
        return [int(str(fact["token"])) for fact in facts if fact["what"] == "claimed"]


def test_each_store_continues_above_the_tokens_of_the_one_before(urls: list[str], tmp_path: Path) -> None:
    """redis, etcd, zookeeper, file, redis: five revisions, five leaders, each with a greater token."""
    volume = Volume(tmp_path)
    for number, url in enumerate(urls):
        assert volume.boot(url, f"r{number}", QUICK) is Outcome.RAN
        assert volume.boot(url, f"r{number}", QUICK) is Outcome.ALREADY_DONE
    tokens = volume.judge()
    assert len(tokens) == 5
    assert tokens == sorted(set(tokens))


def test_two_stores_in_use_at_once_have_one_leader(urls: list[str], tmp_path: Path) -> None:
    """A rolling change: old replicas on redis, new ones on etcd; the newcomer waits until the old leader is done."""
    volume = Volume(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        old = [pool.submit(volume.boot, urls[0], "r1", LONG) for _ in range(2)]
        deadline = time.monotonic() + 60
        while not any(fact["what"] == "claimed" for fact in volume.history.facts()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        new = [pool.submit(volume.boot, urls[1], "r2", QUICK) for _ in range(2)]
        assert sorted(each.result(timeout=120).value for each in old) == ["ran", "waited"]
        assert sorted(each.result(timeout=120).value for each in new) == ["ran", "waited"]
    tokens = volume.judge()
    assert len(tokens) == 2
    assert tokens[0] < tokens[1]
