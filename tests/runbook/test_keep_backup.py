"""The hook of examples/frappe that keeps what a migration begins with, on a stand-in bench."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.fleet import SITE
from tests.runbook.compose import EXAMPLE, Compose
from tests.runbook.page import sections

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.fleet import Fleet


class Shop:
    """A site that serves v1."""

    def __init__(self, fleet: Fleet) -> None:
        self._compose = Compose(fleet)
        self._compose.set("REPLICAS", "1")
        self._compose.play(sections()["First deploy"])
        self._site = fleet.sites / SITE
        self._database = fleet.folder / "database" / "shop.sqlite"

    def write(self, word: str) -> None:
        """Change the data, as a visitor or a patch does."""
        with contextlib.closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute("DELETE FROM tabSingles WHERE doctype = 'Note'")
            connection.execute("INSERT INTO tabSingles (doctype, field, value) VALUES ('Note', 'word', ?)", (word,))

    def keep(self, program: Path | None = None, drop: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run the hook before v2, and return what became of it.

        Args:
            program: a folder of commands that come first.
            drop: a variable that it lacks.
            env: further ones.
        """
        (replica,) = self._compose.replicas
        facts = {"BENCH_DIR": str(replica.bench), "FRAPPE_SITE": SITE}
        facts |= {"BOOTSTRAP_REVISION": "v2", "BOOTSTRAP_MIGRATING": ""}
        folders = [*filter(None, [program]), replica.bench / "env/bin", os.environ["PATH"]]
        environ = {**self._compose.fleet.environ, **facts, "PATH": ":".join(map(str, folders)), **env}
        environ.pop(drop, None)
        command = [EXAMPLE / "bin" / "keep-backup"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)

    def has(self, name: str) -> bool:
        """Return whether there is a backup of that name, whole or not."""
        return (self._site / "private" / "kept" / f"{name}-database.sql.gz").exists()

    def kept(self, revision: str) -> dict[str, str]:
        """Return by name what was kept before a revision, and which word is in it."""
        found = {}
        for path in (self._site / "private" / "kept").glob(f"*{revision}*-database.sql.gz"):
            words = re.findall(r"'Note','word','(\w+)'", gzip.decompress(path.read_bytes()).decode())
            found[path.name.removesuffix("-database.sql.gz")] = " ".join(words)
        return found


@pytest.fixture
def shop(fleet: Fleet) -> Shop:
    """Return the site."""
    return Shop(fleet)


def test_what_a_first_attempt_finds_is_kept_whatever_later_ones_find(shop: Shop) -> None:
    """As long as the database says that it is half migrated, by whatever revision; the log names what is kept."""
    shop.write("before")
    assert "kept: " in shop.keep().stdout
    shop.write("half")
    for migrating in ("v2", "v1.5"):
        assert "kept as it is: " in shop.keep(BOOTSTRAP_MIGRATING=migrating).stdout
    assert shop.kept("v2") == {"before-v2": "before"}


@pytest.mark.parametrize("mode", ["maintenance", "live"])
def test_a_revision_that_comes_again_finds_what_was_written_since(shop: Shop, mode: str) -> None:
    """After a rollback and weeks of work, or under a name that does not change: the old backup is not the way back."""
    for word in ("first", "second"):
        shop.write(word)
        assert shop.keep(UPGRADE_MODE=mode).returncode == 0
    assert shop.kept("v2")["before-v2"] == "second"


def test_what_is_half_migrated_is_never_named_after_what_was_before(shop: Shop) -> None:
    """An attempt without the hook has begun already; before another revision it is what there is."""
    shop.write("half")
    assert "kept nothing: " in shop.keep(BOOTSTRAP_MIGRATING="v2").stdout
    assert shop.kept("v2") == {}
    assert shop.keep(BOOTSTRAP_REVISION="v3", BOOTSTRAP_MIGRATING="v2").returncode == 0
    assert shop.kept("v3") == {"before-v3": "half"}


def test_who_does_not_know_how_the_database_is_keeps_nothing(shop: Shop) -> None:
    """The fact is missing: the hook fails, and nothing is migrated."""
    assert shop.keep(program=None, drop="BOOTSTRAP_MIGRATING").returncode != 0
    assert shop.kept("v2") == {}


def test_after_an_attempt_that_has_changed_nothing_what_visitors_have_written_since_is_kept_too(shop: Shop) -> None:
    """The site was opened again; what was kept last is not overwritten but renamed, and no more than that is kept."""
    for day in ("sunday", "monday", "tuesday"):
        shop.write(day)
        assert shop.keep().returncode == 0
    kept = shop.kept("v2")
    assert kept.pop("before-v2") == "tuesday"
    ((name, word),) = kept.items()
    assert (bool(re.fullmatch(r"before-v2@\d{8}T\d{6}Z", name)), word) == (True, "monday")


def test_a_backup_that_fails_in_the_middle_is_none(shop: Shop, tmp_path: Path) -> None:
    """The hook fails, so nothing is migrated; the next one begins anew."""
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "bench").write_text('#!/bin/sh\nfor last; do :; done\necho half >"$last"\n')
    (bad / "bench").chmod(0o755)
    assert shop.keep(program=bad).returncode != 0
    assert not shop.has("before-v2")
    shop.write("whole")
    assert shop.keep().returncode == 0
    assert shop.kept("v2") == {"before-v2": "whole"}


def test_any_reference_of_an_image_is_the_name_of_a_file_and_no_two_share_one(shop: Shop) -> None:
    """Revisions may have slashes and colons."""
    for revision in ("host/shop:v2", "host_shop:v2"):
        assert shop.keep(BOOTSTRAP_REVISION=revision).returncode == 0
    names = set(shop.kept("shop"))
    assert len(names) == 2
    assert all(re.fullmatch(r"before-host_shop_v2-\d+", name) for name in names)
