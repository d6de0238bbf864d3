"""Creation that is cut off anywhere ends in a healthy site without an operator, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from coordinate import connect
from coordinate.errors import StepFailed
from frappe_bootstrap import image, record, repair, settings
from frappe_bootstrap.bench import Bench
from frappe_bootstrap.waiting import Stop
from frappe_bootstrap.work import Work
from tests.frappe.conftest import LIMIT, Fleet
from tests.standin.fleet import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def creation(fleet: Fleet) -> record.Creation:
    """Return the record of the creation in the site's database."""
    [(text,)] = fleet.bench.sql("SELECT value FROM __frappe_bootstrap WHERE name = 'creation'")
    return msgspec.json.decode(text, type=record.Creation)


@pytest.mark.parametrize(
    "point",
    [
        "begin",
        "site_dir",
        "config",
        "sql_import@5",
        "tables14",
        "doctypes@20",
        "doctypes@84",
        "installed_apps",
        "admin",
    ],
)
def test_a_creation_that_was_killed_is_finished_without_a_drop(fleet: Fleet, point: str) -> None:
    """Hazard 3, real-frappe 5: at each stage; the database stays the same one, and carries our nonce."""
    code, _, err = fleet.run(APPS="", RUN_MIGRATIONS_ON_BOOT="0", STANDIN_DIE=f"new-site:{point}*1")
    assert code == 0, err
    assert fleet.commands()["new-site"] == 2 - (point == "admin")
    made = creation(fleet)
    assert (made.site, made.database, made.done) == ("s1", fleet.bench.config()["db_name"], True)
    assert fleet.bench.config()["frappe_bootstrap_creation"] == made.nonce
    assert fleet.bench.installed() == ["frappe"]
    assert fleet.bench.sql("SELECT name FROM tabUser WHERE name = 'Administrator'")


def without_fill(fleet: Fleet) -> None:
    """Let the next replica's framework be one that cannot fill a database that is there, as v14."""
    fleet.add()
    helper = fleet.benches[-1] / "apps/frappe/frappe/utils/bench_helper.py"
    text = helper.read_text()
    line = '    new_site.add_argument("--setup-db", action=argparse.BooleanOptionalAction, default=True)\n'
    assert line in text
    helper.write_text(text.replace(line, "    new_site.set_defaults(setup_db=True)\n"))


@pytest.mark.parametrize("point", ["config", "db_user", "doctypes@36"])
def test_an_older_framework_makes_its_own_half_made_database_anew(fleet: Fleet, point: str) -> None:
    """Hazard 1, v14: dropped only with our nonce in it, or nothing at all; the folder is kept aside."""
    without_fill(fleet)
    code, _, err = fleet.run(APPS="", RUN_MIGRATIONS_ON_BOOT="0", STANDIN_DIE=f"new-site:{point}*1")
    assert code == 0, err
    assert creation(fleet).done
    assert [path.name for path in fleet.sites.glob(".half-made-s1-*/*.json")] == ["half-made-site_config.json"]


def test_an_older_framework_never_drops_what_it_did_not_make(fleet: Fleet) -> None:
    """Hazard 1: cut off before it made a database; then somebody else made one of that name."""
    without_fill(fleet)
    code, _, err = fleet.run(STANDIN_DIE="new-site:config", DB_NAME="precious")
    assert code == 76, err
    fleet.bench.as_root("CREATE DATABASE precious")
    with fleet.bench.connect(database="precious") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (name VARCHAR(10))")
    fleet.reset("site")
    code, _, err = fleet.run(DB_NAME="precious", IMAGE_REV="2")
    assert code == 81, err
    assert fleet.bench.as_root("SHOW DATABASES") == [("precious",)]


def test_two_sites_never_share_a_database(fleet: Fleet) -> None:
    """Hazard 2: the other site's config on the volume says so, whatever case its name has."""
    assert fleet.run(DB_NAME="shop", APPS="")[0] == 0
    code, _, err = fleet.run(SITE="s2", DB_NAME="Shop", APPS="")
    assert code == 81
    assert "two sites cannot share one" in err
    assert not (fleet.sites / "s2").exists()
    shutil.copytree(fleet.sites / "s1", fleet.sites / "s2")
    shutil.move(fleet.sites / "s1", fleet.root / "elsewhere")
    code, _, err = fleet.run(SITE="s2", DB_NAME="shop", APPS="", IMAGE_REV="2")
    assert code == 81
    assert "belongs to site s1" in err
    assert "frappe-bootstrap adopt s2" in err


def test_a_site_of_the_original_image_is_adopted(fleet: Fleet) -> None:
    """No record, no marker of ours: healthy, so it works unattended, and from then on it has our record."""
    assert fleet.run(APPS="")[0] == 0
    before = fleet.bench.config()
    del before["frappe_bootstrap_creation"]
    (fleet.sites / "s1" / "site_config.json").write_text(json.dumps(before))
    fleet.bench.sql("DROP TABLE __frappe_bootstrap")
    shutil.rmtree(fleet.sites / ".frappe_bootstrap")
    code, _, err = fleet.run(APPS="")
    assert code == 0, err
    assert "adopted" in err
    assert creation(fleet).done
    assert fleet.bench.config() == before
    assert fleet.commands()["new-site"] == 1


def test_a_finished_site_that_is_damaged_later_is_never_filled_again(fleet: Fleet) -> None:
    """An old note of a creation that was cut off proves nothing once the creation has ended."""
    assert fleet.run(APPS="", STANDIN_FAIL="new-site:doctypes@36*3")[0] == 76
    assert fleet.run(APPS="", IMAGE_REV="2")[0] == 0
    fleet.bench.sql("ALTER TABLE tabDefaultValue RENAME TO kept")
    code, _, err = fleet.run(APPS="", IMAGE_REV="3")
    assert (code, fleet.commands()["new-site"]) == (81, 4), err
    assert "frappe-bootstrap repair s1" in err


def test_a_rotated_password_reaches_the_config_after_a_good_login(fleet: Fleet) -> None:
    """Point 21: the config changes only when the environment's password was let in."""
    assert fleet.run(APPS="")[0] == 0
    name = fleet.bench.config()["db_name"]
    fleet.bench.as_root(f"ALTER USER '{name}'@'%' IDENTIFIED BY 'rotated-canary'")
    assert fleet.run(APPS="", IMAGE_REV="2", DB_PASS="wrong-canary")[0] == 81
    assert fleet.bench.config()["db_password"] == fleet.canaries["DB_PASS"]
    code, _, err = fleet.run(APPS="", IMAGE_REV="3", DB_PASS="rotated-canary")
    assert code == 0, err
    assert fleet.bench.config()["db_password"] == "rotated-canary"
    assert "rotated-canary" not in err


def test_a_password_that_is_rotated_after_the_revision_is_done_reaches_the_config(fleet: Fleet) -> None:
    """Point 21: no step runs any more, and what serves must be let in all the same; nothing else is done."""
    assert fleet.run(APPS="")[0] == 0
    name = fleet.bench.config()["db_name"]
    fleet.bench.as_root(f"ALTER USER '{name}'@'%' IDENTIFIED BY 'rotated-canary'")
    before = fleet.commands()
    code, _, err = fleet.run(APPS="", DB_PASS="rotated-canary")
    assert code == 0, err
    assert fleet.bench.config()["db_password"] == "rotated-canary"
    assert (fleet.commands(), "rotated-canary" in err) == (before, False)


def test_a_backup_restored_over_a_creation_that_was_cut_off_stays_as_it_is(fleet: Fleet, tmp_path: Path) -> None:
    """Its nonce is not that of the creation: no password is set in it, and no work of that creation is done."""
    assert fleet.run(APPS="")[0] == 0
    made, name = creation(fleet), fleet.bench.config()["db_name"]
    database = fleet.root / "server" / f"{name}.sqlite"
    backup = database.read_bytes()
    for query in (f"DROP DATABASE `{name}`", f"DROP USER '{name}'@'%'"):
        fleet.bench.as_root(query)
    shutil.rmtree(fleet.sites / "s1")
    shutil.rmtree(fleet.sites / ".frappe_bootstrap")
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder, "new-site:doctypes@36")
    child = fleet.start(APPS="", **gate.environ)
    gate.wait()
    assert creation(fleet).nonce != made.nonce
    child.kill()
    child.communicate(timeout=LIMIT)
    database.write_bytes(backup)
    before = fleet.commands()
    code, _, err = fleet.run(APPS="")
    assert code == 0, err
    assert (fleet.commands()["new-site"], fleet.commands()["set-admin-password"]) == (before["new-site"], 0)
    assert creation(fleet) == made


class Operator:
    """The work of an operator's command on the fleet's site."""

    def __init__(self, fleet: Fleet, **environ: str) -> None:
        if not fleet.benches:
            fleet.add()
        everything = {**fleet.environ, "BENCH_DIR": str(fleet.benches[0]), **environ}
        chosen = settings.load(everything)
        self.lines: list[str] = []
        bench = Bench(chosen, Stop(), everything)
        self.work = Work(chosen, bench, lambda _, line: self.lines.append(line))
        self.coordinator = connect(chosen.lease_url, markers_url=chosen.markers_url)


@pytest.fixture
def operator(fleet: Fleet) -> Iterator[Any]:
    """Return a maker of operators."""
    made: list[Operator] = []

    def make(**environ: str) -> Operator:
        made.append(Operator(fleet, **environ))
        return made[-1]

    yield make
    for each in made:
        each.coordinator.close()


def test_an_operator_repairs_what_nobody_can_prove(fleet: Fleet, operator: Any) -> None:  # noqa: ANN401 - a fixture
    """81 names the command; it fills the site again, drops nothing, and the fleet boots without a reset."""
    fleet.add()
    (fleet.sites / "s1").mkdir()
    assert fleet.run(APPS="")[0] == 81
    each = operator(APPS="")
    repair.repair(each.work, each.coordinator)
    assert fleet.bench.installed() == ["frappe"]
    assert fleet.run(APPS="")[0] == 0
    assert (fleet.sites / image.mirror_name("ready", "registry/image:1")).exists()


def test_an_operator_adopts_a_renamed_site_and_nothing_that_is_not_healthy(fleet: Fleet, operator: Any) -> None:  # noqa: ANN401
    """A renamed folder is refused until somebody says that it belongs here."""
    assert fleet.run(APPS="", DB_NAME="shop")[0] == 0
    (fleet.sites / "s1").rename(fleet.sites / "s2")
    assert fleet.run(SITE="s2", APPS="", DB_NAME="shop")[0] == 81
    each = operator(SITE="s2", APPS="", DB_NAME="shop")
    repair.adopt(each.work, each.coordinator)
    code, _, err = fleet.run(SITE="s2", APPS="", DB_NAME="shop")
    assert code == 0, err
    other = operator(SITE="s3")
    with pytest.raises(StepFailed, match="only a healthy site"):
        repair.adopt(other.work, other.coordinator)
