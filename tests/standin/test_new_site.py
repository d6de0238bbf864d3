"""new-site: what it accepts, refuses and leaves behind (real-frappe 3-5, 8, 10; operating-frappe 4, 6)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.standin.fleet import Bench, Gate


class Half(NamedTuple):
    """One line of the table of half-made sites."""

    point: str
    row: list[str] | str | None
    listed: int
    printed: str
    migrated: int


HALF_MADE = [
    Half("new-site:sql_import@12", "no table", 1, "", 1),
    Half("new-site:tables14", None, 1, "", 1),
    Half("new-site:doctypes@20", None, 1, "", 1),
    Half("new-site:doctypes@36", None, 0, "", 1),
    Half("new-site:doctypes@84", None, 0, "", 1),
    Half("new-site:installed_apps", ["frappe"], 0, '["frappe"]\n', 1),
    Half("install-app:after_install", ["frappe", "demo_app"], 0, '["frappe", "demo_app"]\n', 0),
]


@pytest.mark.parametrize("half", HALF_MADE, ids=lambda half: half.point)
def test_a_killed_new_site_leaves_the_measured_half_state(bench: Bench, half: Half) -> None:
    """real-frappe 5: the table of half-made sites; the last line looks healthy to migrate."""
    assert bench.new_site("--install-app", "demo_app", STANDIN_DIE=half.point).returncode == -9
    if half.row == "no table":
        with pytest.raises(bench.driver.err.ProgrammingError) as missing:
            bench.installed()
        assert missing.value.args[0] == 1146
    else:
        assert bench.installed() == half.row
    listing = bench.run("--site", "s1", "list-apps", "-f", "json")
    assert listing.returncode == half.listed
    assert half.listed or json.loads(listing.stdout) == {"s1": []}
    assert bench.ok("--site", "s1", "execute", "frappe.get_installed_apps") == half.printed
    assert bench.run("--site", "s1", "migrate").returncode == half.migrated


def test_a_rerun_after_a_kill_needs_force_and_nothing_else_helps(bench: Bench) -> None:
    """real-frappe 5: exists; directory deleted: database exists, and a new password that does not match."""
    bench.new_site(STANDIN_DIE="new-site:doctypes@36")
    again = bench.new_site()
    assert (again.returncode, again.stdout) == (1, "Site s1 already exists\n")
    (bench.sites / "s1").rename(bench.sites / "aside")
    third = bench.new_site()
    assert third.returncode == 1
    assert f"Database {bench.config()['db_name']} already exists" in third.stdout
    with pytest.raises(bench.driver.err.OperationalError) as refused:
        bench.connect_site()
    assert refused.value.args[0] == 1045
    assert bench.new_site("--force").returncode == 0
    assert bench.installed() == ["frappe"]


@pytest.mark.parametrize("how", ["down", "password", "nobody to ask"])
def test_a_failed_login_leaves_the_folder_and_a_config(bench: Bench, how: str) -> None:
    """real-frappe 4: 2003, 1045 and end of file at the prompt all leave the directory and site_config.json."""
    if how == "down":
        (bench.path.parent / "server" / "down").touch()
    words = {"down": ["--db-root-password", "x"], "password": ["--db-root-password", "x"]}.get(how, [])
    done = bench.run("new-site", "s1", "--admin-password", "a", "--db-port", "3306", *words)
    assert done.returncode == 1
    assert {"down": "2003", "password": "1045"}.get(how, "Aborted!") in done.stderr
    assert set(bench.config()) == {"db_name", "db_password", "db_port"}


def test_an_existing_config_wins_over_new_arguments_even_with_force(bench: Bench) -> None:
    """real-frappe 4: a wrong port stays wrong."""
    assert "2003" in bench.new_site("--db-port", "1").stderr
    assert "2003" in bench.new_site("--force", "--db-port", "3306").stderr


def test_force_drops_a_database_whoever_owns_it(bench: Bench) -> None:
    """real-frappe 4: --force with an existing database name loses unrelated tables."""
    bench.as_root("CREATE DATABASE `precious`")
    with bench.connect(database="precious") as connection:
        connection.cursor().execute("CREATE TABLE work (name VARCHAR(10))")
    assert "Database precious already exists" in bench.new_site("--db-name", "precious").stdout
    assert bench.new_site("--db-name", "precious", "--force").returncode == 0
    assert bench.sql("SHOW TABLES LIKE 'work'") == []


def test_without_apps_txt_nothing_is_left_behind(bench: Bench) -> None:
    """real-frappe 4, operating-frappe 11: an empty volume says apps.txt Not Found."""
    (bench.sites / "apps.txt").unlink()
    done = bench.new_site()
    assert (done.returncode, done.stdout) == (1, "apps.txt Not Found\n")
    assert not (bench.sites / "s1").exists()


def test_a_quote_in_the_database_password_leaves_a_half_made_site(bench: Bench) -> None:
    """operating-frappe 6: the password is put into a string; a quote breaks it after the folder was made."""
    done = bench.new_site("--db-password", "it's")
    assert done.returncode == 1
    assert "1064" in done.stderr
    assert (bench.sites / "s1" / "site_config.json").exists()


def test_a_backslash_in_the_database_password_locks_the_site_out(bench: Bench) -> None:
    """operating-frappe 6: the server reads another password than the config has; the rest stays."""
    done = bench.new_site("--db-password", "back\\slash")
    assert done.returncode == 1
    assert "1045" in done.stderr
    assert (bench.config()["db_name"],) in bench.as_root("SHOW DATABASES")


@pytest.mark.parametrize(
    ("words", "works"),
    [([], 0), (["--mariadb-user-host-login-scope=%"], 1), (["--no-mariadb-socket"], 1)],
)
def test_the_site_user_is_bound_to_one_host_unless_told_otherwise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, words: list[str], works: int
) -> None:
    """operating-frappe 4 and 6: from another container it is 1045, never distinguishable."""
    assert bench.new_site(*words).returncode == 0
    monkeypatch.setenv("STANDIN_DB_CLIENT", "another-container")
    if works:
        assert bench.installed() == ["frappe"]
        return
    with pytest.raises(bench.driver.err.OperationalError) as refused:
        bench.installed()
    assert refused.value.args[0] == 1045


def test_a_prepared_database_needs_no_root_and_may_be_half_full(bench: Bench) -> None:
    """real-frappe 5: --no-setup-db works, also after a kill in the middle."""
    bench.as_root("CREATE USER 'prep'@'%' IDENTIFIED BY 'pw'")
    bench.as_root("CREATE DATABASE `prep`")
    bench.as_root("GRANT ALL PRIVILEGES ON `prep`.* TO 'prep'@'%'")
    words = ("--no-setup-db", "--db-name", "prep", "--db-password", "pw", "--admin-password", "a")
    assert bench.run("new-site", "s1", *words, STANDIN_DIE="new-site:doctypes@24").returncode == -9
    assert bench.run("new-site", "s1", *words, "--force").returncode == 0
    assert bench.installed() == ["frappe"]


def test_secrets_may_come_from_stdin_root_first_then_admin_twice(bench: Bench) -> None:
    """real-frappe 10: one per line, without a controlling terminal."""
    done = bench.run("new-site", "s1", stdin=f"{bench.root['password']}\nboss\nboss\n")
    assert done.returncode == 0, done.stderr
    assert password_is(bench, "boss")


def test_the_config_file_beats_admin_password_but_not_root_password(bench: Bench) -> None:
    """real-frappe 10: precedence is uneven, and the secrets are not copied into site_config.json."""
    path = bench.sites / "common_site_config.json"
    secrets = {"root_login": "root", "root_password": "wrong", "admin_password": "file"}
    path.write_text(json.dumps(bench.config("common_site_config.json") | secrets))
    assert bench.new_site().returncode == 0
    assert password_is(bench, "file")
    assert not set(secrets) & set(bench.config())


def test_killed_right_after_the_row_there_is_nobody_who_could_log_in(bench: Bench) -> None:
    """real-frappe 5: installed_apps is written before users and the admin password."""
    bench.new_site(STANDIN_DIE="new-site:installed_apps")
    assert bench.sql("SELECT name FROM tabUser") == []
    assert bench.sql("SELECT name FROM __Auth") == []


def password_is(bench: Bench, password: str) -> bool:
    """Return whether Administrator's stored hash is of this password."""
    [(stored,)] = bench.sql("SELECT password FROM __Auth WHERE name = 'Administrator'")
    _, _, salt, digest = stored.split("$")
    return bool(hashlib.sha256((salt + password).encode()).hexdigest() == digest)


def test_a_new_site_has_its_scheduler_disabled_and_no_encryption_key_yet(bench: Bench) -> None:
    """operating-frappe 15 and 18: disabled after creation; the key appears at its first use."""
    assert bench.new_site().returncode == 0
    assert bench.sql("SELECT value FROM tabSingles WHERE field = 'enable_scheduler'") == [("0",)]
    assert "encryption_key" not in bench.config()
    key = json.loads(bench.ok("--site", "s1", "execute", "frappe.utils.password.get_encryption_key"))
    assert bench.config()["encryption_key"] == key


def test_of_two_at_the_same_instant_one_gets_a_lock_error(bench: Bench, gate: Callable[[str], Gate]) -> None:
    """real-frappe 8: both pass the check for the folder, one holds bench_new_site.lock."""
    held = gate("new-site:begin")
    with bench.started("new-site", "s1", **held.environ) as second:
        held.wait()
        (bench.sites / "s1" / "locks").mkdir(parents=True)
        with (bench.sites / "s1" / "locks" / "bench_new_site.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held.open()
            out, _ = second.communicate(timeout=120)
    assert second.returncode == 1
    assert "Failed to aquire lock: bench_new_site" in out


def test_force_hangs_while_a_failed_request_left_its_transaction_open(bench: Bench) -> None:
    """real-frappe 5: DROP DATABASE waits for idle transactions; when they are killed it goes on."""
    bench.new_site(STANDIN_DIE="new-site:doctypes@36")
    with contextlib.closing(bench.connect_site(autocommit=False)) as idle:
        idle.cursor().execute("SELECT COUNT(*) FROM tabDocField")
        with bench.started(
            "new-site", "s1", "--force", "--db-root-password", bench.root["password"], "--admin-password", "a"
        ) as forced:
            query = "SELECT INFO FROM information_schema.processlist WHERE INFO LIKE 'DROP DATABASE%'"
            while not bench.as_root(query):
                assert forced.poll() is None
            bench.as_root(f"KILL {idle.thread_id()}")
            forced.communicate(timeout=120)
    assert forced.returncode == 0
