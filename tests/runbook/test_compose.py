"""What the runbook is played on behaves as compose does, where a section could be wrong about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.runbook.compose import Compose
from tests.runbook.images import Code
from tests.runbook.page import Block, sections
from tests.runbook.replica import merged

if TYPE_CHECKING:
    from tests.acceptance.fleet import Fleet

NEW = Code(patches=("p1", "p2", "p3"))
UP = "docker compose up -d"
SHIPPED = "tail -n 1 apps/demo_app/demo_app/patches.txt"


@pytest.fixture
def compose(fleet: Fleet) -> Compose:
    """Return the command, on two replicas that serve."""
    made = Compose(fleet)
    made.set("REPLICAS", "2")
    made.play(sections()["First deploy"])
    return made


def _type(compose: Compose, *lines: str) -> str:
    compose.play([Block("sh", "\n".join(lines))])
    return compose.printed


def _started(compose: Compose) -> list[float]:
    return [replica.container.started for replica in compose.replicas]


def test_up_leaves_alone_what_serves_and_has_not_changed(compose: Compose) -> None:
    """A secret that has changed is no change; a line of .env is one; so is being told to."""
    before = _started(compose)
    _type(compose, "chmod u+w secrets/db_pass", "printf %s x > secrets/db_pass", UP)
    assert _started(compose) == before
    logs = compose.printed, merged(compose.replicas)
    compose.set("DRAIN_TIMEOUT", "7")
    _type(compose, UP)
    changed = _started(compose)
    assert all(now > then for now, then in zip(changed, before, strict=True))
    assert merged(compose.replicas) not in logs
    _type(compose, f"{UP} --force-recreate app")
    assert all(now > then for now, then in zip(_started(compose), changed, strict=True))


def test_a_container_that_was_stopped_is_started_again_and_goes_on_with_its_log(compose: Compose) -> None:
    """It is the same one."""
    before = compose.replicas[0].log()
    _type(compose, "docker compose stop app", UP)
    assert compose.replicas[0].log().startswith(before)
    assert compose.replicas[0].log() != before


def test_a_build_gives_the_code_of_today_a_name_and_no_other_name_another_code(compose: Compose) -> None:
    """``run`` takes the image that has the name now, ``exec`` is in the container that is there."""
    compose.images.checkout = NEW
    compose.set("IMAGE_REV", "v2")
    run, enter = (f'docker compose {words} app sh -c "{SHIPPED}"' for words in ('run --rm --entrypoint ""', "exec"))
    assert "p3" in _type(compose, "docker compose build", run)
    assert "p2" in _type(compose, enter)
    compose.set("IMAGE_REV", "v1")
    assert "p2" in _type(compose, run)
    assert "p3" in _type(compose, "docker compose build", run), "which is why nobody builds on the way back"


def test_an_image_that_is_missing_is_built_by_up_unless_it_is_told_not_to(compose: Compose) -> None:
    """Of the code of today."""
    compose.images.remove("v1")
    compose.images.checkout = NEW
    with pytest.raises(AssertionError, match="no such image: v1"):
        _type(compose, f"{UP} --no-build")
    _type(compose, UP)
    assert compose.images.inspect("v1").code == NEW


def test_a_log_of_several_containers_is_one_by_time(compose: Compose) -> None:
    """Lines without a time stay with what they belong to."""
    first, second = compose.replicas
    first.container.log.write_text("2026-01-01T00:00:01.0+00:00 a\n  more\n2026-01-01T00:00:03.0+00:00 c\n")
    second.container.log.write_text("2026-01-01T00:00:02.0+00:00 b\n")
    said = [line.split()[-1] for line in _type(compose, "docker compose logs app").splitlines()]
    assert said == ["a", "more", "b", "c"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("docker compose up -d --keep-old", "--keep-old"),
        ("docker compose exec web true", "web"),
        ("printf %s x > secrets/db_pass", "permission denied"),
    ],
)
def test_what_docker_or_the_system_would_refuse_is_refused(compose: Compose, line: str, why: str) -> None:
    """Else a section could be wrong, and its test green."""
    with pytest.raises(AssertionError, match=why):
        _type(compose, line)
    with pytest.raises(AssertionError, match="NO_SUCH"):
        compose.set("NO_SUCH", "1")
