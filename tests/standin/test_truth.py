"""What lies and what does not (real-frappe 6; operating-frappe 1, 2)."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.standin.fleet import Bench

EXECUTE = ("--site", "s1", "execute", "frappe.get_installed_apps")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM tabDefaultValue WHERE defkey = 'installed_apps'",
        "UPDATE tabDefaultValue SET defvalue = '[\"frappe\", \"x\"]' WHERE defkey = 'installed_apps'",
        "RENAME TABLE tabDefaultValue TO elsewhere",
    ],
)
def test_execute_get_installed_apps_lies_after_the_row_was_changed(site: Bench, change: str) -> None:
    """operating-frappe 1: it prints the cached row, exit 0, after delete, change and rename of the table."""
    assert json.loads(site.ok(*EXECUTE)) == ["frappe"]
    site.sql(change)
    assert json.loads(site.ok(*EXECUTE)) == ["frappe"]


def test_without_the_cache_server_execute_reads_the_row(site: Bench) -> None:
    """real-frappe 5: empty output means none."""
    site.ok(*EXECUTE)
    site.sql("DELETE FROM tabDefaultValue")
    assert site.ok(*EXECUTE, FRAPPE_REDIS_CACHE="redis://127.0.0.1:1") == ""


def test_list_apps_shows_the_record_of_the_last_migrate(site: Bench) -> None:
    """real-frappe 6: the table of what list-apps says after new-site, migrate and a later install."""
    listing = ("--site", "s1", "list-apps")
    assert json.loads(site.ok(*listing, "-f", "json")) == {"s1": []}
    assert site.ok(*listing) == "frappe\n"
    site.ok("--site", "s1", "migrate")
    site.ok("--site", "s1", "install-app", "demo_app")
    assert json.loads(site.ok(*listing, "-f", "json")) == {"s1": ["frappe"]}
    assert json.loads(site.ok(*EXECUTE)) == ["frappe", "demo_app"]
    site.ok("--site", "s1", "migrate")
    assert json.loads(site.ok(*listing, "-f", "json")) == {"s1": ["frappe", "demo_app"]}
    assert site.ok(*listing).splitlines()[1] == "demo_app 0.0.1 version-15"


def test_with_the_database_down_listing_and_execute_say_2003(site: Bench) -> None:
    """real-frappe 4: exit 1, whatever the cache knows."""
    site.ok(*EXECUTE)
    (site.path.parent / "server" / "down").touch()
    for command in (EXECUTE, ("--site", "s1", "list-apps")):
        done = site.run(*command)
        assert done.returncode == 1
        assert "2003" in done.stderr


def test_a_dead_clients_statement_goes_on_until_it_is_killed(site: Bench) -> None:
    """operating-frappe 2: the session stays listed; the site's own user may kill it."""
    site.run("--site", "s1", "migrate", STANDIN_DB_LINGER="60", STANDIN_DIE="migrate:doctypes")
    query = "SELECT ID, COMMAND FROM information_schema.processlist WHERE ID <> CONNECTION_ID() AND DB = %s"
    [(number, command)] = site.sql(query, site.config()["db_name"])
    assert command == "Query"
    site.sql(f"KILL {number}")
    assert site.sql(query, site.config()["db_name"]) == []


def test_a_dead_client_without_a_running_statement_is_gone_at_once(site: Bench) -> None:
    """operating-frappe 2, the other side: idle sessions of a killed process do not stay."""
    site.run("--site", "s1", "migrate", STANDIN_DIE="migrate:doctypes")
    assert len(site.sql("SELECT ID FROM information_schema.processlist")) == 1


def test_a_user_sees_and_kills_its_own_sessions_only(site: Bench) -> None:
    """operating-frappe 2: no further rights are needed for its own, and it has none over others."""
    with contextlib.closing(site.connect()) as root:
        with pytest.raises(site.driver.err.OperationalError) as refused:
            site.sql(f"KILL {root.thread_id()}")
        assert refused.value.args[0] == 1095
        assert len(site.sql("SHOW PROCESSLIST")) == 1
        assert len(site.as_root("SHOW PROCESSLIST")) == 2
