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
from tests.runbook.page import PAGE, Block, sections
from tests.servers import redis_server
from tests.stacks.etcd import etcd
from tests.stacks.sentinel import Look, SentinelStack, sentinel_stack
from tests.standin.fleet import make_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW = ("p1", "p2", "p3")


@pytest.fixture
def fleet(tmp_path: Path, redis_port: int) -> Iterator[Fleet]:
    """Return three replicas that take their passwords from files, as those of the example do."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    with Fleet(tmp_path, 3, redis_port) as fleet:
        for name in ("DB_PASS", "DB_ROOT_PASS", "ADMIN_PASS"):
            path = secrets / name.lower()
            path.write_text(fleet.environ.pop(name))
            fleet.environ[f"{name}_FILE"] = str(path)
        yield fleet


@pytest.fixture
def compose(fleet: Fleet) -> Compose:
    """Return the command, on replicas that serve revision v1."""
    compose = Compose(fleet)
    compose.play(sections()["First deploy"])
    assert compose.codes == [0, 0, 0]
    return compose


def image(fleet: Fleet, patches: tuple[str, ...] = ("p1", "p2"), apps: tuple[str, ...] = ("demo_app",)) -> None:
    """Give every replica another image."""
    for container in fleet.containers:
        shutil.rmtree(container.bench)
        shipped = dict.fromkeys(apps, patches)
        make_bench.make_bench(container.bench, apps, sites=fleet.sites, apps_txt=False, patches=shipped)


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
    compose.build = lambda: image(compose.fleet, NEW)
    compose.play(sections()["Upgrade"])
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("migrate:end") == before + 1
    assert list((compose.fleet.sites / SITE / "private" / "backups").iterdir())


def test_a_failed_upgrade_and_the_way_back(compose: Compose) -> None:
    """It stays closed until a better image comes; or the old one with the old data."""
    fleet, before = compose.fleet, compose.fleet.count("migrate:end")
    compose.play([Block("sh", f"docker compose exec app bench --site {SITE} backup")])
    images = [("migrate:after_patches", NEW), ("", (*NEW, "p4"))]

    def build() -> None:
        """Make the next image: one that fails, then one that does not."""
        failing, patches = images.pop(0)
        fleet.environ["STANDIN_FAIL"] = failing
        image(fleet, patches)
        if not images:
            assert compose.codes == [76, 76, 76]
            assert config(fleet)["maintenance_mode"] == 1

    compose.build = build
    compose.play(sections()["A failed upgrade"])
    assert compose.codes == [0, 0, 0]
    assert "maintenance_mode" not in config(fleet)
    assert fleet.count("migrate:end") == before + 1

    compose.build = lambda: image(fleet)
    fleet.environ["IMAGE_REV"] = "v1"
    compose.play([Block("sh", "docker compose build\ndocker compose up -d")])
    assert compose.codes == [84, 84, 84], "before the restore"
    compose.play(sections()["Rollback"])
    assert compose.codes == [0, 0, 0]
    assert fleet.count("migrate:end") == before + 1


def test_sites_come_and_go(compose: Compose) -> None:
    """The first one is not touched when the second one comes, nor the second one when it goes."""
    migrations = compose.fleet.count("migrate:end")
    compose.play(sections()["Add and remove a site"])
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("new-site:end") == 2
    assert compose.fleet.count("migrate:end") == migrations + 2, "of the new one, before and after its app"


def test_apps_come_and_go(compose: Compose) -> None:
    """Installed by the leader, once; gone by hand, then by image."""
    images = [("demo_app", "second_app"), ("demo_app",)]
    compose.build = lambda: image(compose.fleet, apps=images.pop(0))
    compose.play(sections()["Add and remove an app"])
    assert compose.codes == [0, 0, 0]
    assert compose.fleet.count("install-app:end") == 2


def test_a_backup_is_restored(compose: Compose) -> None:
    """One of before the upgrade, under the image of after it."""
    compose.build = lambda: image(compose.fleet, NEW)
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
        compose.build = lambda: image(compose.fleet, NEW)
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
        compose.build = lambda: image(fleet, NEW)
        compose.play(sections()["Drain"])
        assert compose.codes == [83, 83, 83]
        assert "maintenance_mode" not in config(fleet)
        queue.delete("rq:wip:bench:long")
        compose.play([Block("sh", "docker compose up -d")])
        assert compose.codes == [0, 0, 0]
