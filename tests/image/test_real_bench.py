"""The stage that builds the bench, with frappe-bench itself; only the framework that it clones is the stand-in's."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.image import engine

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """
[project]
name = "frappe"
version = "15.0.0"
requires-python = ">=3.10"
dependencies = ["pymysql"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""


def _repository(folder: Path) -> Path:
    """Return a repository of git that bench takes for the framework's."""
    made = folder / "frappe"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(engine.ROOT / "examples/standin_bench/frappe", made / "frappe", ignore=ignored)
    (made / "pyproject.toml").write_text(PROJECT)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for words in (("init", "--quiet", "--initial-branch=v15"), ("add", "."), (*who, "commit", "--quiet", "-m", "all")):
        engine.run("git", "-C", made, *words)
    # git serves a repository only to its owner, who is the builder's user here.
    engine.run("chown", "--recursive", "1000:0", made)
    return made


def test_frappe_bench_makes_a_bench_of_a_repository_by_make_bench(tmp_path: Path) -> None:
    """Its options, uv among the commands, no rights of root, the assets in the image and no .git left."""
    image = engine.build_with_frappe_bench(_repository(tmp_path))
    shown = engine.podman(
        *("run", "--rm", "--entrypoint", "bash", image, "-euc"),
        "cd /home/frappe/frappe-bench; bench --version; ls -A . sites assets; find . -name .git; "
        "env/bin/python -c 'import frappe; print(frappe.__file__)'",
    ).splitlines()
    assert shown[0].startswith("5.")
    assert {"apps", "assets.json", "env", "logs", "sites"} <= set(shown)
    assert shown[-1] == "/home/frappe/frappe-bench/apps/frappe/frappe/__init__.py"
    assert not [line for line in shown if line.endswith(".git")]
