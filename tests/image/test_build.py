"""The image that the shipped Dockerfile makes."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.image import engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARIES = (b"CANARYtoken=1", b"CANARYtoken%3D1")
OVERHEAD = 25_000_000


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the image as it would be pushed: its layers and its configuration."""
    folder = tmp_path_factory.mktemp("image") / "layers"
    engine.podman("save", "--format", "docker-dir", "-o", folder, engine.build("v1"), timeout=300)
    return folder


def _inside(image: str, script: str, *options: str) -> str:
    words = ("run", "--rm", "--no-healthcheck", *options, "--entrypoint", "bash", image, "-euc", script)
    return engine.podman(*words)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of every layer, also of what a later layer hides, and the configuration."""
    for path in sorted(folder.iterdir()):
        if not tarfile.is_tarfile(path):
            yield path.name, path.read_bytes()
            continue
        with tarfile.open(path) as layer:
            for member in layer:
                if member.isfile():
                    reader = layer.extractfile(member)
                    assert reader
                    yield f"{path.name}:{member.name}", reader.read()


def test_no_layer_and_no_history_holds_a_token_of_apps_json(layers: Path) -> None:
    """The stand-in's bench init writes it where the real one does: git's configuration and its own log."""
    names = set()
    for name, content in _files(layers):
        names.add(name.rpartition(":")[2])
        assert not [canary for canary in CANARIES if canary in content], name
    assert "home/frappe/frappe-bench/apps/demo_app/demo_app/hooks.py" in names
    assert not [name for name in names if "/.git/" in name or name.endswith("bench.log")]


def test_our_code_costs_no_more_than_25_megabytes() -> None:
    """Measured as the layer that holds it, bytecode included."""
    history = json.loads(engine.podman("history", "--format", "json", engine.build("v1")))
    sizes = [row["size"] for row in history if "/opt/coordinate" in row["CreatedBy"] or "COPY" in row["CreatedBy"]]
    (size,) = {
        int(line.split()[0]) for line in _inside(engine.build("v1"), "du -sb /opt/coordinate").splitlines() if line
    }
    assert 1_000_000 < size <= OVERHEAD
    assert max(sizes) <= OVERHEAD


def test_our_environment_holds_bytecode_and_no_tool() -> None:
    """No pip to maintain, and a start that compiles nothing on a root that cannot be written."""
    listed = _inside(engine.build("v1"), "find /opt/coordinate -name '*.py*'")
    sources = {line for line in listed.splitlines() if line.endswith(".py") and "/frappe_bootstrap/" in line}
    compiled = [line for line in listed.splitlines() if line.endswith(".pyc") and "/frappe_bootstrap/" in line]
    assert len(compiled) == len(sources) > 30
    assert "/pip/" not in listed


def test_it_is_what_the_original_was_for_those_who_run_it() -> None:
    """Points 22 and 23: user, health check, entrypoint; the revision is part of the image."""
    (shown,) = json.loads(engine.podman("inspect", engine.build("v1")))
    config = shown["Config"]
    assert config["Entrypoint"] == ["frappe-bootstrap", "--"]
    assert config["User"] == "1000:0"
    assert shown["Healthcheck"]["Test"] == ["CMD", "frappe-bootstrap", "live"]
    assert {"IMAGE_REV=v1", "BOOTSTRAP_MODE=supervise", "WAITING_ROOM_PORT=8080"} <= set(config["Env"])


def test_another_revision_has_other_apps_although_a_secret_is_no_part_of_a_caches_key() -> None:
    """An image that says v2 and brings the apps of v1 would be the worst of all."""
    script = 'echo "$IMAGE_REV"; tail -n 1 apps/demo_app/demo_app/patches.txt'
    for revision, last in (("v1", "p2"), ("v2", "p3")):
        assert _inside(engine.build(revision), script).split() == [revision, f"demo_app.patches.{last}"]


def test_any_user_of_group_0_may_write_what_is_written_and_nothing_else() -> None:
    """Code is root's; the three folders are the group's."""
    script = """
    cd /home/frappe/frappe-bench
    touch sites/x logs/x config/pids/x
    find apps env assets /opt /usr/local/bin -writable -not -type l
    """
    assert _inside(engine.build("v1"), script, "--user", "23456:0") == ""
