"""Each section of docs/operate-frappe.md does what it says."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.fleet import SECRETS, SITE, Fleet
from tests.runbook.compose import Compose
from tests.runbook.images import Code
from tests.runbook.page import PAGE, Block, sections
from tests.servers import redis_server
from tests.stacks.etcd import etcd
from tests.stacks.sentinel import Look, SentinelStack, sentinel_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW = Code(patches=("p1", "p2", "p3"))
FAILING = Code(NEW.patches, fails="migrate:after_patches")


@pytest.fixture
def compose(fleet: Fleet) -> Compose:
    """Return the command, on replicas that serve revision v1."""
    compose = Compose(fleet)
    compose.play(sections()["First deploy"])
    assert compose.codes == [0, 0, 0]
    return compose


def config(fleet: Fleet) -> dict[str, Any]:
    """Return the site's config."""
    found: dict[str, Any] = json.loads((fleet.sites / SITE / "site_config.json").read_text())
    return found


def with_url(blocks: list[Block], url: str) -> list[Block]:
    """Return blocks with the address of a server of ours in the place of the page's."""
    pattern = r"'\S+'(?= > secrets/coordinate_url)"
    assert any(re.search(pattern, block.text) for block in blocks)
    return [Block(block.kind, re.sub(pattern, f"'{url}'", block.text)) for block in blocks]


@contextlib.contextmanager
def safe_sentinels(folder: Path) -> Iterator[SentinelStack]:
    """Run a stack with the settings that the doctor asks for."""
    server = ("--appendonly", "yes", "--appendfsync", "always", "--min-replicas-to-write", "1")
    with sentinel_stack(folder, Look(server=(*server, "--min-replicas-max-lag", "10"))) as stack:
        yield stack


def test_every_section_has_its_test() -> None:
    """A section without one would be prose."""
    assert len(sections()) == 14
    for title in sections():
        assert f'"{title}"' in PAGE.parents[1].joinpath("tests/runbook/test_operate_frappe.py").read_text(), title


def test_first_deploy_and_logs(compose: Compose) -> None:
    """The logs are those of the deploy."""
    compose.play(sections()["Read the logs"])
    assert compose.fleet.count("new-site:end") == 1
    for secret in SECRETS.values():
        assert secret not in compose.printed


def test_upgrade(compose: Compose) -> None:
    """One migration for all, the new patch is applied."""
    before = compose.fleet.count("migrate:end")
    compose.images.checkout = NEW
    compose.play(sections()["Upgrade"])
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("migrate:end") == before + 1


def test_a_failed_upgrade_and_the_way_forward(compose: Compose) -> None:
    """It stays closed until a better image comes."""
    fleet, before = compose.fleet, compose.fleet.count("migrate:end")
    failed, mended = _halves(sections()["A failed upgrade"], "IMAGE_REV=v3")
    compose.images.checkout = FAILING
    compose.play(failed)
    assert compose.codes == [76, 76, 76]
    assert config(fleet)["maintenance_mode"] == 1
    compose.images.checkout = Code((*NEW.patches, "p4"))
    compose.play(mended)
    assert compose.codes == [0, 0, 0]
    assert "maintenance_mode" not in config(fleet)
    assert fleet.count("migrate:end") == before + 1


def _halves(blocks: list[Block], line: str) -> tuple[list[Block], list[Block]]:
    """Return what comes before a line of .env, and the rest."""
    (at,) = [number for number, block in enumerate(blocks) if line in block.text and block.kind == "env"]
    return blocks[:at], blocks[at:]


def _fail(compose: Compose) -> None:
    """Fail an upgrade as often as the fleet tries, each time with something done that the old code cannot serve."""
    compose.images.checkout = FAILING
    compose.play(_halves(sections()["A failed upgrade"], "IMAGE_REV=v3")[0])
    assert compose.codes == [76, 76, 76]


def test_a_failed_upgrade_and_the_way_back(compose: Compose) -> None:
    """The image that was built then, whatever the checkout is now, with the data of before the first attempt."""
    fleet = compose.fleet
    before = fleet.count("migrate:end")
    _fail(compose)
    compose.set("IMAGE_REV", "v1")
    compose.play([Block("sh", "docker compose up -d")])
    assert compose.codes == [84, 84, 84], "before the restore"
    compose.play(sections()["Rollback"])
    assert compose.codes == [0, 0, 0]
    assert fleet.count("migrate:end") == before
    assert "maintenance_mode" not in config(fleet)


def test_there_is_no_way_back_without_the_old_image_and_nothing_is_touched(compose: Compose) -> None:
    """Nothing is built in its place, nothing restored."""
    _fail(compose)
    compose.images.remove("v1")
    database = compose.fleet.folder / "database" / "shop.sqlite"
    before = database.read_bytes()
    with pytest.raises(AssertionError, match="no such image"):
        compose.play(sections()["Rollback"])
    assert database.read_bytes() == before


def test_sites_come_and_go(compose: Compose) -> None:
    """The first one is not touched when the second one comes, nor the second one when it goes."""
    migrations = compose.fleet.count("migrate:end")
    compose.play(sections()["Add and remove a site"])
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("new-site:end") == 2
    assert compose.fleet.count("migrate:end") == migrations + 2, "of the new one, before and after its app"


def test_apps_come_and_go(compose: Compose) -> None:
    """Installed by the leader, once; gone by hand, then by image."""
    added, removed = _halves(sections()["Add and remove an app"], "IMAGE_REV=v3")
    compose.images.checkout = Code(apps=("demo_app", "second_app"))
    compose.play(added)
    compose.images.checkout = Code()
    compose.play(removed)
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("install-app:end") == 2


def test_a_backup_is_restored(compose: Compose) -> None:
    """One of before the upgrade, under the image of after it."""
    compose.images.checkout = NEW
    compose.play(sections()["Upgrade"])
    before = compose.fleet.count("migrate:end")
    compose.play(sections()["Restore a backup"])
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("migrate:end") == before + 1


def test_a_lost_volume(compose: Compose) -> None:
    """Refused without it; whole again with its config."""
    fleet = compose.fleet
    saved = fleet.folder / "backup"
    saved.mkdir()
    shutil.copy(fleet.sites / SITE / "site_config.json", saved)
    for path in fleet.sites.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    compose.play([Block("sh", "docker compose down")])
    before = json.loads((saved / "site_config.json").read_text())
    compose.play(sections()["A lost volume with a live database"])
    assert compose.codes == [0, 0, 0]
    assert config(fleet) == before
    assert fleet.count("new-site:end") == 1


def test_a_password_is_rotated(compose: Compose) -> None:
    """In the database first, then in the secret."""
    fleet = compose.fleet
    users = fleet.folder / "database" / "users.json"
    state = json.loads(users.read_text())
    for account in state["users"][config(fleet)["db_name"]].values():
        account["password"] = "rotated-canary"
    users.write_text(json.dumps(state))
    fleet.environ["NEW_PASSWORD"] = "rotated-canary"
    compose.play(sections()["Rotate DB_PASS"])
    assert compose.codes == [0, 0, 0]
    assert config(fleet)["db_password"] == "rotated-canary"
    assert "rotated-canary" not in compose.printed


@pytest.mark.parametrize(("title", "stack"), [("Move to Sentinel", safe_sentinels), ("Move to etcd", etcd)])
def test_leases_move(compose: Compose, tmp_path: Path, title: str, stack: Any) -> None:  # noqa: ANN401 - either kind
    """Nothing is done again; the next revision is brought about under the new store's lease."""
    place = tmp_path / "stack"
    place.mkdir()
    with stack(place) as running:
        url = running.url if title == "Move to Sentinel" else f"{running.url}/frappe"
        before = len(compose.fleet.history())
        compose.play(with_url(sections()[title], url))
        assert compose.codes == [0, 0, 0]
        assert len(compose.fleet.history()) == before
        compose.images.checkout = NEW
        compose.play(sections()["Upgrade"])
        assert compose.codes == [0, 0, 0]


def test_scale(compose: Compose) -> None:
    """Five instead of three; no command of the bench runs."""
    before = len(compose.fleet.history())
    compose.play(sections()["Scale"])
    assert compose.codes == [0] * 5
    assert len(compose.fleet.history()) == before


def test_drain(compose: Compose, tmp_path: Path) -> None:
    """A running job holds the upgrade up; when it has ended, the same revision goes on."""
    fleet = compose.fleet
    place = tmp_path / "queue"
    place.mkdir()
    with redis_server(place) as server, contextlib.closing(server.client()) as queue:
        queue.sadd("rq:queues", "rq:queue:bench:long")
        queue.sadd("rq:workers", "rq:worker:w1")
        queue.set("rq:worker:w1", "")
        queue.zadd("rq:wip:bench:long", {f"{SITE}::report": 2**40})
        fleet.environ["REDIS_QUEUE_URL"] = server.url
        compose.images.checkout = NEW
        compose.play(sections()["Drain"])
        assert compose.codes == [83, 83, 83]
        assert "maintenance_mode" not in config(fleet)
        queue.delete("rq:wip:bench:long")
        compose.play([Block("sh", "docker compose up -d")])
        assert compose.codes == [0, 0, 0]
