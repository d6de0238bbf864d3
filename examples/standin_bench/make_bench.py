"""Make a stand-in bench: a folder that looks, runs and fails like a Frappe v15 bench, in well under a second.

    python make_bench.py FOLDER --app demo_app

``make_bench`` gives the bench, ``make_database`` the folder that stands for its database server (point
STANDIN_DB_DIR at it). All switches are described in ``frappe/knobs.py``.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

HERE = Path(__file__).resolve().parent
DEFAULT_PATCHES = ("p1", "p2")

_HOOKS = """app_name = "{app}"
before_install = "{app}.install.hook"
after_install = "{app}.install.hook"
before_migrate = ["{app}.install.hook"]
after_migrate = ["{app}.install.hook"]
"""
_INSTALL = "def hook():\n    pass\n"
_PATCH = "def execute():\n    pass\n"
_LAUNCHER = """#!{python}
import os, shlex, sys
bench = {bench!r}
argv = sys.argv[1:]
if not all(os.path.isdir(os.path.join(bench, part)) for part in ("apps", "sites", "config/pids", "logs")):
    sys.exit("Error: No such option: --site")
with open(os.path.join(bench, "logs/bench.log"), "a") as log:
    log.write("INFO bench " + shlex.join(argv) + "\\n")
os.chdir(os.path.join(bench, "sites"))
os.execv({python!r}, [{python!r}, "-m", "frappe.utils.bench_helper", "frappe", *argv])
"""


def make_database(folder: Path, root_password: str, *, port: int = 3306) -> Path:
    """Make the folder that stands for a database server; its user root may do everything from everywhere."""
    root = {"%": {"password": root_password, "databases": ["*"]}}
    (Path(folder) / "sessions").mkdir(parents=True, exist_ok=True)
    (Path(folder) / "users.json").write_text(json.dumps({"port": port, "users": {"root": root}}))
    return Path(folder)


def make_bench(  # noqa: PLR0913 - each names one part of a bench that tests vary
    root: Path,
    apps: Sequence[str] = ("demo_app",),
    python: str = sys.executable,
    real_pymysql: bool = False,  # noqa: FBT001, FBT002 - agreed with the callers
    *,
    apps_txt: bool = True,
    sites: Path | None = None,
    common_config: Mapping[str, Any] | None = None,
    patches: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Make a bench in ``root`` with frappe and ``apps`` and return its path.

    ``sites``: a folder to use as sites folder, for benches that share one volume; what is there is kept.
    ``patches``: names of patches of an app, instead of p1 and p2. The bench has no pip and no Frappe in it.
    """
    bench = Path(root).resolve()
    for part in ("apps", "config/pids", "logs"):
        (bench / part).mkdir(parents=True, exist_ok=True)
    _make_sites(bench, sites)
    # Compiled here once, so that the copy in every new bench starts warm; a read-only tree does no harm.
    compileall.compile_dir(HERE / "frappe", quiet=2)
    shutil.copytree(HERE / "frappe", bench / "apps" / "frappe" / "frappe", dirs_exist_ok=True)
    others = [app for app in apps if app != "frappe"]
    for app in others:
        make_app(bench, app, (patches or {}).get(app, DEFAULT_PATCHES))
    if apps_txt:
        (bench / "sites" / "apps.txt").write_text("\n".join(["frappe", *others]) + "\n")
    if common_config is not None:
        (bench / "sites" / "common_site_config.json").write_text(json.dumps(dict(common_config), indent=1))
    _make_environment(bench, ["frappe", *others], python, real_pymysql=real_pymysql)
    return bench


def _make_sites(bench: Path, sites: Path | None) -> None:
    if sites is None:
        (bench / "sites").mkdir(exist_ok=True)
    else:
        Path(sites).mkdir(parents=True, exist_ok=True)
        (bench / "sites").symlink_to(Path(sites).resolve())


def make_app(bench: Path, app: str, patches: Sequence[str] = DEFAULT_PATCHES) -> Path:
    """Write the source of an app into a bench; its hooks and patches do nothing but leave a counted trace."""
    package = bench / "apps" / app / app
    doctype = app.removesuffix("_app") + "_note"
    files = {
        "__init__.py": '__version__ = "0.0.1"\n',
        "hooks.py": _HOOKS.format(app=app),
        "install.py": _INSTALL,
        "modules.txt": app.replace("_", " ").title() + "\n",
        "patches.txt": "[post_model_sync]\n" + "".join(f"{app}.patches.{name}\n" for name in patches),
        "patches/__init__.py": "",
        f"{app}/doctype/{doctype}/{doctype}.json": json.dumps({"doctype": "DocType", "name": doctype, "fields": []}),
        f"public/{app}.css": f".{app} {{ margin: 0 }}\n",
        f"public/{app}.js": f'console.log("{app}")\n',
    }
    files |= {f"patches/{name}.py": _PATCH for name in patches}
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def _version_of(python: str) -> str:
    if python == sys.executable:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()


def _make_environment(bench: Path, apps: Sequence[str], python: str, *, real_pymysql: bool) -> None:
    """Make ``env/`` a virtual environment by hand: a config, a link, and one .pth file."""
    base = Path(python).resolve()
    packages = bench / "env" / "lib" / f"python{_version_of(python)}" / "site-packages"
    for folder in (packages, bench / "env" / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
    (bench / "env" / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    link = bench / "env" / "bin" / "python"
    link.unlink(missing_ok=True)
    link.symlink_to(base)
    paths = [str(bench / "apps" / app) for app in apps]
    if real_pymysql:
        found = importlib.util.find_spec("pymysql")
        if found is None or found.origin is None:
            message = "real_pymysql=True needs PyMySQL in the environment that makes the bench"
            raise ModuleNotFoundError(message)
        (packages / "pymysql").unlink(missing_ok=True)
        (packages / "pymysql").symlink_to(Path(found.origin).parent)
    else:
        paths.append(str(HERE / "pymysql_standin"))
    (packages / "standin.pth").write_text("\n".join(paths) + "\n")
    launcher = bench / "env" / "bin" / "bench"
    launcher.write_text(_LAUNCHER.format(python=str(link), bench=str(bench)))
    launcher.chmod(0o755)


def main() -> None:
    """Make a bench and the folder of its database server from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--app", action="append", default=[], help="an app besides frappe; may be repeated")
    parser.add_argument("--real-pymysql", action="store_true", help="use the installed PyMySQL and a real server")
    parser.add_argument("--database", type=Path, help="also make the stand-in database server in this folder")
    parser.add_argument("--root-password", default="root", help="root's password of that server")
    options = parser.parse_args()
    if options.database:
        make_database(options.database, options.root_password)
    print(make_bench(options.root, options.app or ["demo_app"], real_pymysql=options.real_pymysql))


if __name__ == "__main__":
    main()
