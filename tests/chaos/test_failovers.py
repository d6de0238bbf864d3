"""Hundreds of failovers in which the successor lacks the newest writes: nobody holds what somebody else holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from coordinate.testing import Tenure, oracle

FAILOVERS = int(os.environ.get("COORDINATE_FAILOVERS", "60"))
STACKS = 8
SEED = int(os.environ.get("COORDINATE_SEED", "20261123"))
ROOT = Path(__file__).parents[2]


class Verdict(NamedTuple):
    """What is wrong with tenures of one name.

    Args:
        overlaps: pairs that were believed in at the same instant.
        repeats: tokens that were not greater than all earlier ones.
    """

    overlaps: list[str]
    repeats: list[str]


def judge(tenures: list[dict[str, object]]) -> Verdict:
    """Return what is wrong with the tenures of one name; knows nothing of how they were granted."""
    held = [Tenure("job", each["token"], each["since"], each["until"]) for each in tenures]
    tokens = [(tenure.name, tenure.token) for tenure in sorted(held, key=lambda tenure: tenure.since)]
    return Verdict(oracle.overlaps(held), oracle.stale_tokens(tokens))


def test_the_judge_sees_overlaps_and_repeats() -> None:
    """A judge that finds nothing is worth as much as what it would find."""
    rows = [(1, 0.0, 5.0), (2, 6.0, 7.0), (2, 6.5, 6.6), (1, 6.9, 8.0), (9, 9.0, 9.1)]
    verdict = judge([{"token": token, "since": since, "until": until} for token, since, until in rows])
    assert (len(verdict.overlaps), len(verdict.repeats)) == (2, 2)


def histories(folder: Path) -> list[list[dict[str, object]]]:
    """Run the stacks side by side and return what their contenders believed."""
    shares = [FAILOVERS // STACKS + (number < FAILOVERS % STACKS) for number in range(STACKS)]
    running = []
    for number, share in enumerate(shares):
        place = folder / str(number)
        place.mkdir()
        argv = [sys.executable, "-m", "tests.chaos.failovers", str(place), str(SEED + number), str(share)]
        with (place / "log").open("wb") as log:
            running.append((place, subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)))
    try:
        codes = [process.wait(60 + 8 * max(shares)) for _, process in running]
    finally:
        for _, process in running:
            process.kill()
            process.wait()
    assert codes == [0] * STACKS, [(place / "log").read_text()[-3000:] for place, _ in running]
    return [[json.loads(line) for line in (place / "history").read_text().splitlines()] for place, _ in running]


@pytest.mark.timeout(900)
def test_failovers_make_no_second_holder_and_no_token_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No overlap, no token that is not greater, no grant refused; plain locks beside ours show what was at stake."""
    rows = histories(tmp_path)
    ours = [[row for row in history if row["kind"] == "ours"] for history in rows]
    plain = [[row for row in history if row["kind"] == "plain"] for history in rows]
    verdicts, plainly = [judge(each) for each in ours], [judge(each) for each in plain]
    failovers = sum(row["count"] for history in rows for row in history if row["kind"] == "nemesis")
    everything = [row for history in ours for row in history]
    refused = [row for row in everything if row["refused"]]
    unconfirmed = [row for row in everything if not row["confirmed"] and not row["refused"]]
    overlaps, repeats = (sum(map(len, each)) for each in zip(*verdicts, strict=True))
    lost, again = (sum(map(len, each)) for each in zip(*plainly, strict=True))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{failovers} failovers\n"
            f"  ours:            {len(everything)} grants, {overlaps} overlaps, {repeats} tokens repeated or smaller,"
            f" {len(refused)} refused, {len(unconfirmed)} lost for want of an answer\n"
            f"  SET NX PX, INCR: {sum(map(len, plain))} grants, {lost} overlaps, {again} tokens repeated or smaller\n"
        )
    assert failovers == FAILOVERS
    assert [verdict.overlaps for verdict in verdicts] == [[]] * STACKS
    assert [verdict.repeats for verdict in verdicts] == [[]] * STACKS
    assert not refused, json.dumps(refused, indent=1)
    assert len(everything) > failovers / 2
    assert lost + again > 0, "the failovers lost nothing: this run proves nothing"
