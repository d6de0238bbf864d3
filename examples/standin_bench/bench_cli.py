"""The command ``bench`` as frappe-bench brings it, as far as an image needs it.

``bench init --apps_path apps.json FOLDER`` makes a stand-in bench with the apps of that list. Whatever the branch
``vN`` of an app says, its source has the patches p1 to pN+1, so that images of two branches have different schemas.
As the real one it leaves the addresses, tokens included, in each ``.git/config`` and in ``logs/bench.log``, and built
assets in ``sites/assets``. Every other command goes to the bench that the current folder is in.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).resolve().parent
_GUNICORN = """#!{python}
import importlib.util, sys
host, _, port = sys.argv[sys.argv.index("--bind") + 1].rpartition(":")
sys.argv[1:] = ["--host", host, "--port", port]
spec = importlib.util.spec_from_file_location("web", {web!r})
web = importlib.util.module_from_spec(spec)
spec.loader.exec_module(web)
web.main()
"""


def _module(name: str) -> ModuleType:
    """Import a file beside this one, whether this is a package or a folder."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _patches(branch: str) -> list[str]:
    match = re.fullmatch(r"v(\d+)", branch)
    return [f"p{number}" for number in range(1, int(match[1]) + 2 if match else 3)]


def init(words: list[str]) -> None:
    """Make a bench; the options are those that a builder passes to the real one."""
    parser = argparse.ArgumentParser(prog="bench init", allow_abbrev=False)
    parser.add_argument("path", type=Path)
    parser.add_argument("--apps_path", type=Path)
    parser.add_argument("--frappe-path", default="https://github.com/frappe/frappe")
    parser.add_argument("--frappe-branch", default="version-15")
    parser.add_argument("--python", default="python3")
    for flag in ("--no-procfile", "--no-backups", "--skip-redis-config-generation", "--verbose"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args(words)
    rows = json.loads(options.apps_path.read_text()) if options.apps_path else []
    apps = {Path(row["url"]).name.removesuffix(".git"): row for row in rows}
    patches = {app: _patches(str(row.get("branch", ""))) for app, row in apps.items()}
    bench = _module("make_bench").make_bench(options.path, list(apps), real_pymysql=True, patches=patches)
    for app, url in {"frappe": options.frappe_path, **{app: row["url"] for app, row in apps.items()}}.items():
        config = bench / "apps" / app / ".git" / "config"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f'[remote "upstream"]\n\turl = {url}\n')
        with (bench / "logs" / "bench.log").open("a") as log:
            log.write(f"INFO bench {shlex.join(['git', 'clone', url])}\n")
    _add_programs(bench)
    python = bench / "env" / "bin" / "python"
    command = [python, "-m", "frappe.utils.bench_helper", "frappe", "build"]
    subprocess.run(command, cwd=bench / "sites", env={**os.environ, "STANDIN_SCALE": "0"}, check=True)


def _add_programs(bench: Path) -> None:
    """Add gunicorn and the websocket server, whose place a program takes that only waits."""
    gunicorn = bench / "env" / "bin" / "gunicorn"
    gunicorn.write_text(_GUNICORN.format(python=bench / "env" / "bin" / "python", web=str(HERE / "web.py")))
    gunicorn.chmod(0o755)
    (bench / "apps" / "frappe" / "socketio.js").write_text("setInterval(() => {}, 1000)\n")


def _bench_around(folder: Path) -> Path:
    for candidate in (folder, *folder.parents):
        if all((candidate / part).is_dir() for part in ("apps", "sites", "env/bin")):
            return candidate
    sys.exit("Error: not in a bench")


def main() -> None:
    """Make a bench, or run a command of the one around the current folder."""
    words = sys.argv[1:]
    if words[:1] == ["init"]:
        init(words[1:])
        return
    bench = _bench_around(Path.cwd())
    python = str(bench / "env" / "bin" / "python")
    os.chdir(bench / "sites")
    os.execv(python, [python, "-m", "frappe.utils.bench_helper", "frappe", *words])  # noqa: S606 -- as the real one


if __name__ == "__main__":
    main()
