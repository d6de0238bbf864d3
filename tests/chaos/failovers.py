"""One stack that fails over again and again while contenders work: ours, and plain ``SET NX PX`` with ``INCR``.

usage: failovers.py FOLDER SEED FAILOVERS

Each failover promotes a random replica by hand, after both of them were left behind for a while: cut off from the
primary, or stopped. The primary is killed or stopped, and comes back as a replica. Every tenure, as its holder
believed in it, becomes one JSON line of FOLDER/history, with a clock that all processes of a host share.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import redis

from coordinate import connect
from coordinate.errors import AcquireTimeout, BackendUnavailable, LeaseLost, StaleToken
from tests.servers import free_port
from tests.stacks.fake_sentinel import fake_sentinel
from tests.stacks.replicated import replicated

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.coordinator import Coordinator
    from coordinate.lease import Lease
    from tests.servers import RedisServer
    from tests.stacks.fake_sentinel import FakeSentinel
    from tests.stacks.replicated import Replicated

TTL = 1.5
LOOK = 0.004
"""Seconds between two looks of a holder at its lease."""
GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def now() -> float:
    """Return the seconds on the clock of all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Tenure(NamedTuple):
    """One grant, as its holder saw it.

    Args:
        kind: ``ours`` or ``plain``.
        token: fencing token.
        since: when the holder began to believe.
        until: the last instant at which it did.
        refused: a claim was refused, or the store said that the lease is gone, before its time was over.
        confirmed: claimed, and renewed once.
        end: how it ended.
    """

    kind: str
    token: int
    since: float
    until: float
    refused: bool = False
    confirmed: bool = False
    end: str = ""


class Run:
    """What the threads of one stack share."""

    def __init__(self, group: Replicated, sentinel: FakeSentinel, chance: random.Random) -> None:
        self.group = group
        self.sentinel = sentinel
        self.chance = chance
        self.over = threading.Event()
        self.tenures: list[Tenure] = []
        self.failovers = 0

    # Contenders

    def contend(self) -> None:
        """Acquire, claim, hold for a while, give back, until it is over."""
        with connect(f"redis+sentinel://{self.sentinel.address}/main", ttl=TTL) as coordinator:
            while not self.over.is_set():
                lease = coordinator.lease("job")
                try:
                    lease.acquire(3)
                except (AcquireTimeout, BackendUnavailable):
                    continue
                self.tenures.append(self._hold(coordinator, lease))

    def _hold(self, coordinator: Coordinator, lease: Lease) -> Tenure:
        since = until = deadline = now()
        renewed, claimed, refused = threading.Event(), False, False
        lease.on_renewed(lambda _: renewed.set())
        told: list[float] = []
        lease.on_lost(lambda _: told.append(now()))
        leave_at = since + self.chance.uniform(0.1, 3.0)
        while lease.held:
            until, deadline = now(), lease.deadline
            if not claimed:
                try:
                    claimed = self._claim(coordinator, lease)
                except StaleToken:
                    refused = True
                    break
            elif renewed.is_set() and (until > leave_at or self.over.is_set()):
                break
            time.sleep(LOOK)
        loss = lease.lost
        with contextlib.suppress(BackendUnavailable):
            lease.release()
        # A renewal that a starved server hears of when the lease is over is answered so, and rightly.
        early = not told or told[0] < deadline
        refused = refused or (loss is not None and "the store says so" in loss.detail and early)
        end = "released" if loss is None else f"{loss.reason.value}: {loss.detail}"
        return Tenure("ours", lease.token, since, until, refused, claimed and renewed.is_set(), end)

    def _claim(self, coordinator: Coordinator, lease: Lease) -> bool:
        try:
            coordinator.markers("site").claim(lease, coordinator.backend.store_id)
        except (BackendUnavailable, LeaseLost):
            return False
        return True

    def contend_plainly(self) -> None:
        """Do what most programs do: SET NX PX for the lock, INCR for the token."""
        while not self.over.is_set():
            with (
                contextlib.suppress(redis.RedisError),
                redis.Redis(port=self.sentinel.named or 0, socket_timeout=TTL / 6, protocol=2) as client,
            ):
                self._contend_plainly(client, self.sentinel.named)

    def _contend_plainly(self, client: redis.Redis, port: int | None) -> None:
        while not self.over.is_set() and self.sentinel.named == port:
            sent, nonce = now(), self.chance.randbytes(8)
            if not client.set("plain", nonce, nx=True, px=round(TTL * 1000)):
                time.sleep(0.02)
                continue
            token, since = client.incr("plain:token"), now()
            until = min(sent + TTL, since + self.chance.uniform(0.1, 2 * TTL))
            time.sleep(max(0.0, until - now()))
            self.tenures.append(Tenure("plain", token, since, until))
            client.eval(GIVE_BACK, 1, "plain", nonce)

    # The nemesis

    def fail_over(self) -> None:
        """Leave both replicas behind, end the primary, promote one of them, bring the others back."""
        old, (new, other) = self.group.primary, self.chance.sample(self.group.replicas, 2)
        for replica in (new, other):
            self._leave_behind(replica)
        time.sleep(self.chance.uniform(0.05, 0.8))
        hurt = self.chance.choice((old.kill, old.pause))
        hurt()
        new.resume()
        self.group.promote(new)
        self.sentinel.named = new.port
        self.failovers += 1
        other.resume()
        self.group.follow(other)
        time.sleep(self.chance.uniform(0.0, 0.5))
        old.resume() if old.running else old.start()
        self.group.follow(old)

    def _leave_behind(self, replica: RedisServer) -> None:
        if self.chance.random() < 0.5:
            replica.pause()
        else:
            with replica.client() as client:
                client.replicaof("127.0.0.1", str(free_port()))


def main(folder: Path, seed: int, failovers: int) -> None:
    """Run one stack and write down what its contenders believed."""
    chance = random.Random(seed)  # noqa: S311 -- reproducible choices, no secret
    with replicated(folder, "--min-replicas-max-lag", "1") as group, fake_sentinel(group.primary.port) as sentinel:
        run = Run(group, sentinel, chance)
        targets: list[Callable[[], None]] = [run.contend] * 3 + [run.contend_plainly] * 2
        threads = [threading.Thread(target=target) for target in targets]
        for thread in threads:
            thread.start()
        try:
            for _ in range(failovers):
                # Longer and shorter than a quarantine: some failovers come in the middle of the one before.
                time.sleep(chance.uniform(0.2, 5.0))
                run.fail_over()
            time.sleep(2 * TTL + 2)
        finally:
            run.over.set()
            for thread in threads:
                thread.join()
    rows = [json.dumps(tenure._asdict()) for tenure in run.tenures]
    (folder / "history").write_text("\n".join(rows) + f"\n{json.dumps({'kind': 'nemesis', 'count': run.failovers})}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
