"""Three replicas of the image: cold, with their leader killed in the migration, and rolled while requests run."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Self

from coordinate.testing import eventually
from tests.image import engine
from tests.image.replicas import STOP, Answer, Front, Replica, Slot, ask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.image.replicas import Volume

GATE = "/standin/gate"
UPDATED = "The site is being updated and will be back soon."


class Visitors:
    """Ask the front proxy without a pause, as people and as programs, until told to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.answers: list[Answer] = []
        wishes = (("/login", "text/html"), ("/api/method/ping", "application/json"))
        self._threads = [threading.Thread(target=self._visit, args=wish) for wish in wishes]

    def _visit(self, path: str, accept: str) -> None:
        while not self._over.wait(0.03):
            self.answers.append(ask(self._port, path, Accept=accept))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, revision: str) -> None:
        """Return when the site has answered with a revision."""
        eventually(lambda: revision in revisions(self.seen()), within=60, what=f"an answer of {revision}")

    def seen(self, since: float = 0.0) -> list[Answer]:
        """Return what was answered since an instant, in order."""
        return sorted((answer for answer in self.answers if answer.at > since), key=lambda answer: answer.at)


def wrong(answers: list[Answer]) -> list[Answer]:
    """Return what nobody may be told: neither 200 nor the 503 of the waiting room, or of the front proxy's copy."""
    return [one for one in answers if one.status != 200 and not _is_the_waiting_room(one)]


def _is_the_waiting_room(answer: Answer) -> bool:
    return answer.status == 503 and "retry-after" in answer.headers and UPDATED in answer.body


def revisions(answers: list[Answer]) -> list[str]:
    """Return the revisions in the order in which they were answered, each run once."""
    named = [answer.revision for answer in answers if answer.status == 200]
    return [name for before, name in zip(["", *named], named, strict=False) if name != before]


def test_three_replicas_boot_lose_their_leader_and_are_rolled_to_a_new_revision(shared: Volume) -> None:
    """All the time only 200 and the waiting room's 503, and never an answer of a revision that is not the volume's."""
    old, new = engine.build("v1"), engine.build("v2")
    gate = shared.folder / "standin" / "gate"
    pause = {"STANDIN_PAUSE": f"migrate:doctypes@frappe*1={GATE}"}
    slots = [Slot.free() for _ in range(6)]
    with closing(Front(shared.folder, slots)) as front, Visitors(front.port) as visitors:
        replicas = [Replica(shared, old, slot=slot, **pause) for slot in slots[:3]]
        _kill_the_leader(shared, replicas, gate)
        visitors.wait_for("v1")
        assert wrong(visitors.seen()) == [], front.log()
        assert any("Steps" in answer.body for answer in visitors.seen() if answer.status == 503)
        rolled = _roll(shared, replicas, slots[3:], new)
        visitors.wait_for("v2")
    answers = visitors.seen()
    assert wrong(answers) == [], front.log()
    assert revisions(answers) == ["v1", "v2"], front.log()
    assert shared.count("new-site:end") == 1
    for replica in rolled:
        assert replica.stop()[1] == 0


def _kill_the_leader(shared: Volume, replicas: list[Replica], gate: Path) -> None:
    """Kill it in the middle of the migration; another one finishes, and all that are left serve."""
    eventually(lambda: shared.count("migrate:doctypes") > 0, within=60, what="the migration")
    states: dict[str, Replica] = {}

    def known() -> bool:
        """Ask each one; what it shows may be a second old."""
        states.update({replica.state(): replica for replica in replicas})
        return sorted(replica.state() for replica in replicas) == ["leading", "waiting", "waiting"]

    eventually(known, within=30, what="one that leads and two that wait")
    leader = states["leading"]
    leader.kill()
    gate.touch()
    assert leader.exit_code() == 137
    replicas.remove(leader)
    for replica in replicas:
        replica.wait_until_ready()


def _roll(shared: Volume, replicas: list[Replica], slots: list[Slot], image: str) -> list[Replica]:
    """Bring a new revision about as an orchestrator does: one new replica first, then the old ones go."""
    rolled = [Replica(shared, image, slot=slots[0]).wait_until_ready()]
    assert [replica.state() for replica in replicas] == ["unready", "unready"]
    for replica, slot in zip(replicas, slots[1:], strict=True):
        rolled.append(Replica(shared, image, slot=slot).wait_until_ready())
        seconds, code = replica.stop()
        assert (seconds < STOP, code) == (True, 0), replica.log()
    return rolled
