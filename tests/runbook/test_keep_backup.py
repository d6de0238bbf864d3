"""The hook of examples/frappe that keeps what a migration begins with, on a stand-in bench."""

from __future__ import annotations

import contextlib
import gzip
import json
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

JOURNAL = "frappe_bootstrap_maintenance"


class Shop:
    """A site that serves v1."""

    def __init__(self, fleet: Fleet) -> None:
        self._compose = Compose(fleet)
        self._compose.set("REPLICAS", "1")
        self._compose.play(sections()["First deploy"])
        self._site = fleet.sites / SITE
        self._database = fleet.folder / "database" / "shop.sqlite"

    def journal(self, **marks: bool) -> None:
        """Write into the site's configuration how far a maintenance has got."""
        path = self._site / "site_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), JOURNAL: marks}))

    def write(self, word: str) -> None:
        """Change the data, as a visitor or a patch does."""
        with contextlib.closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute("DELETE FROM tabSingles WHERE doctype = 'Note'")
            connection.execute("INSERT INTO tabSingles (doctype, field, value) VALUES ('Note', 'word', ?)", (word,))

    def keep(self, program: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the hook before v2, and return what became of it; ``program``: a folder of commands that come first."""
        (replica,) = self._compose.replicas
        facts = {"BENCH_DIR": str(replica.bench), "FRAPPE_SITE": SITE, "BOOTSTRAP_REVISION": "v2"}
        folders = [*filter(None, [program]), replica.bench / "env/bin", os.environ["PATH"]]
        environ = {**self._compose.fleet.environ, **facts, "PATH": ":".join(map(str, folders)), **env}
        command = [EXAMPLE / "bin" / "keep-backup"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)

    def has(self, name: str) -> bool:
        """Return whether there is a backup of that name, whole or not."""
        return (self._site / "private" / "kept" / f"{name}-database.sql.gz").exists()

    def kept(self, revision: str = "") -> dict[str, str]:
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
    """As long as the journal says that the data may have been changed; the log names what is kept."""
    shop.write("before")
    assert "kept: " in shop.keep().stdout
    shop.journal(known=True, changed=True)
    shop.write("half")
    assert "kept as it is: " in shop.keep().stdout
    assert shop.kept("v2") == {"before-v2": "before"}


def test_after_an_attempt_that_has_changed_nothing_what_visitors_have_written_since_is_kept_too(shop: Shop) -> None:
    """The site was opened again; what was kept last is not overwritten but renamed, and no more than that is kept."""
    for day in ("sunday", "monday", "tuesday"):
        shop.write(day)
        assert shop.keep().returncode == 0
    kept = shop.kept("v2")
    assert kept.pop("before-v2") == "tuesday"
    ((name, word),) = kept.items()
    assert (bool(re.fullmatch(r"before-v2@\d{8}T\d{6}Z", name)), word) == (True, "monday")


def test_a_site_that_stays_open_has_no_journal_and_keeps_the_first(shop: Shop) -> None:
    """UPGRADE_MODE=live: nobody knows what an earlier attempt has done."""
    shop.write("before")
    shop.keep(UPGRADE_MODE="live")
    shop.write("half")
    shop.keep(UPGRADE_MODE="live")
    assert shop.kept("v2") == {"before-v2": "before"}


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
