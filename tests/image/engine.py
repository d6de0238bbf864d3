"""podman and buildah in folders of their own, a base image by debootstrap, and the shipped Dockerfile built on it.

Everything that costs time lies in ``.cache/image`` of the checkout: the base image and the layers. Needs root and the
Debian packages that script/test installs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "image"
# Sockets lie here, whose paths must be short; the same for each run, because podman remembers it.
RUN = Path(tempfile.gettempdir()) / f"image-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:10]}"
BASE, NODE = "localhost/base", "localhost/node-3"
BASE_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
RUNTIME_PACKAGES = "gettext-base media-types nginx-light supervisor"
TOKEN = "CANARYtoken=1"
BUILD_LIMIT = 480

# crun refuses some layouts of cgroups and limits that may not be raised are given as they may be.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=4000:4000", "nproc=20000:20000"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{run}/tmp"
"""
_STORAGE = """
[storage]
driver = "overlay"
runroot = "{run}/run"
graphroot = "{cache}/graph"
"""
# As the real one, it leaves its cache to whoever runs it.
_NPM = """#!/bin/sh
cache=$HOME/.npm
while [ $# -gt 0 ]; do [ "$1" != --cache ] || cache=$2; shift; done
mkdir -p "$cache/_cacache"
echo x >"$cache/_cacache/x"
ln -sf /bin/true /usr/local/bin/yarn
"""
_NODE_FILES = {
    "usr/local/bin/node": "#!/bin/sh\nexec sleep infinity\n",
    "usr/local/lib/node_modules/npm/bin/npm-cli.js": _NPM,
}


@cache
def environment() -> dict[str, str]:
    """Return the environment in which podman and buildah know our folders."""
    assert os.geteuid() == 0, "containers are run by root here"
    for folder in (CACHE, RUN):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {"CONTAINERS_CONF": _CONTAINERS, "CONTAINERS_STORAGE_CONF": _STORAGE}
    for name, text in files.items():
        (CACHE / name).write_text(text.format(run=RUN, cache=CACHE))
    return {**os.environ, **{name: str(CACHE / name) for name in files}}


def artefacts() -> Path:
    """Return the folder of what a run leaves for people: figures and screenshots."""
    folder = CACHE / "artefacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(*words: str | Path, timeout: float = BUILD_LIMIT, check: bool = True, **env: str) -> str:
    """Run a program in that environment and return its output; if it fails, show what it said."""
    command = [str(word) for word in words]
    done = subprocess.run(
        command, env=environment() | env, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0 or not check, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + ("" if check else done.stderr)


def podman(*words: str | Path, timeout: float = 60, check: bool = True) -> str:
    """Run podman. What it says about health checks without systemd is not shown."""
    return run("podman", "--log-level=fatal", *words, timeout=timeout, check=check)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be the only one of all test processes that builds."""
    environment()
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _mirror(codename: str) -> str:
    """Return the archive that apt uses for this release."""
    targets = run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    rows = [line.split() for line in targets.splitlines()]
    return next(uri for release, component, uri in rows if (release, component) == (codename, "main"))


def _bootstrap() -> Path:
    """Return the archive of a small Debian with Python, made once."""
    archive = CACHE / f"base-{hashlib.sha256(BASE_PACKAGES.encode()).hexdigest()[:10]}.tar"
    if not archive.exists():
        lines = Path("/etc/os-release").read_text().splitlines()
        codename = next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            place = Path(folder) / "root"
            words = ["--variant=minbase", f"--include={BASE_PACKAGES}", codename, place, _mirror(codename)]
            run("debootstrap", *words, PATH=f"{os.environ['PATH']}:/usr/sbin:/sbin")
            # Who reaches the registries through an authority of his own does so in the container, too.
            shutil.copy("/etc/ssl/certs/ca-certificates.crt", place / "etc/ssl/certs/ca-certificates.crt")
            shutil.rmtree(place / "var/cache/apt/archives", ignore_errors=True)
            run("tar", "-C", place, "-cf", archive.with_suffix(".new"), ".")
        archive.with_suffix(".new").replace(archive)
    return archive


def _ensure_base() -> None:
    archive = _bootstrap()
    if archive.stem not in podman("images", "--format", "{{.Repository}}:{{.Tag}}"):
        podman("import", archive, f"{BASE}:{archive.stem}", timeout=120)
        podman("tag", f"{BASE}:{archive.stem}", f"{BASE}:latest")
    if NODE not in podman("images", "--format", "{{.Repository}}"):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in _NODE_FILES.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                path.chmod(0o755)
            run("tar", "-C", folder, "-cf", CACHE / "node.tar", ".")
        podman("import", CACHE / "node.tar", NODE)


def _index() -> str:
    """Return the index of packages that is used here, if it is not the usual one."""
    return next(filter(None, map(os.environ.get, ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"))), "")


def _pip_configuration(folder: Path) -> Path:
    """Return what pip in the build has to know: the index that pip uses here."""
    index = _index()
    path = folder / "pip.conf"
    path.write_text("[global]\n" + (f"index-url = {index}\n" if index else ""))
    return path


def _standin(folder: Path) -> Path:
    """Return the stand-in bench as a package, in the place of frappe-bench."""
    target = folder / "standin"
    shutil.copytree(ROOT / "examples/standin_bench", target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return target


@cache
def build(revision: str) -> str:
    """Build the shipped Dockerfile for a revision and return the image's name.

    Only what cannot be fetched is replaced: both base images, the command bench (by the stand-in's), the packages that
    a stand-in has no use for. The apps come from a build secret with a token in it.
    """
    apps = [{"url": f"https://x:{TOKEN.replace('=', '%3D')}@git.example/shop/demo_app", "branch": revision}]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "apps.json").write_text(json.dumps(apps))
        options = ["--secret", f"id=apps_json,src={folder / 'apps.json'}"]
        options += ["--volume", f"{_standin(folder)}:/opt/standin:ro"]
        return _build(f"localhost/shop:{revision}", options, BENCH_CLI="/opt/standin", IMAGE_REV=revision)


def build_with_frappe_bench(repository: Path) -> str:
    """Build the stage ``builder`` with frappe-bench, which clones this repository; return the image's name."""
    trust = {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
    if index := _index():
        trust["UV_DEFAULT_INDEX"] = index
    options = ["--target", "builder", "--volume", f"{repository}:/opt/repository:ro"]
    options += [word for name, value in trust.items() for word in ("--env", f"{name}={value}")]
    packages = f"{RUNTIME_PACKAGES} git"
    named = {"FRAPPE_PATH": "/opt/repository", "FRAPPE_BRANCH": "v15", "RUNTIME_PACKAGES": packages}
    return _build("localhost/bench", options, **named)


def _build(name: str, options: list[str], **arguments: str) -> str:
    given = {
        "BASE_IMAGE": BASE,
        "NODE_IMAGE": NODE,
        "RUNTIME_PACKAGES": RUNTIME_PACKAGES,
        "BUILD_PACKAGES": "pkg-config",
        **arguments,
    }
    # By itself it leaves one container, and its mount, of every stage that only copies.
    command = [
        "buildah",
        "bud",
        "--isolation",
        "chroot",
        "--layers",
        "--force-rm",
        "--format",
        "docker",
        "--tag",
        name,
        *options,
    ]
    command += [word for key, value in given.items() for word in ("--build-arg", f"{key}={value}")]
    with alone(), tempfile.TemporaryDirectory() as temporary:
        _ensure_base()
        command += ["--secret", f"id=pip_conf,src={_pip_configuration(Path(temporary))}"]
        run(*command, "--file", ROOT / "examples/frappe/Dockerfile", ROOT)
    return name
