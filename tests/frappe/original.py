"""What the entrypoint of the original image does to a volume: markers by revision, no record in the database."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frappe_bootstrap import redis_link
from tests.standin.fleet import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from tests.frappe.conftest import Fleet


@dataclass
class Original:
    """A container of the original image: it believes the files on the volume, and nothing else."""

    fleet: Fleet

    def __post_init__(self) -> None:
        """Give it a bench of its own."""
        self.fleet.add()
        names = ("STANDIN_DB_DIR", "STANDIN_DIR", "STANDIN_SCALE", "STANDIN_LOG")
        self.bench = Bench(self.fleet.benches[-1], {name: self.fleet.environ[name] for name in names})
        # The next replica of ours has another bench.
        self.fleet.benches.pop()
        self.fleet.benches.insert(0, self.bench.path)
        self.fleet.add()
        self.redis = f"redis://127.0.0.1:{self.fleet.environ['REDIS_QUEUE_PORT']}"

    def marker(self, kind: str, revision: str) -> Path:
        """Return the path of one of its files; what is in it nobody reads."""
        return self.bench.sites / f".{kind}_{revision}"

    def boot(self, revision: str) -> None:
        """Do what its leader does, up to the hand-over; a failing command ends it."""
        self._configure()
        key = f"frappe:leader:s1:{revision}"
        redis_link.ask(self.redis, "SET", key, "a-container")
        self._initialise(revision)
        for kind, work in (
            ("migrated", self._migrate),
            ("apps_installed", self._install),
            ("assets_built", self._build),
        ):
            if not self.marker(kind, revision).exists():
                work()
                self._touch(kind, revision)
        redis_link.ask(self.redis, "DEL", key)
        self._touch("ready", revision)

    def _touch(self, kind: str, revision: str) -> None:
        self.marker(kind, revision).write_text(f"{time.ctime()}\n")

    def _configure(self) -> None:
        apps = self.bench.sites / "apps.txt"
        if not apps.exists():
            apps.write_text("frappe\ndemo_app\n")
        ports = dict.fromkeys(("cache", "queue", "socketio"), self.fleet.environ["REDIS_QUEUE_PORT"])
        values = {f"redis_{name}": f"redis://127.0.0.1:{port}" for name, port in ports.items()}
        for key, value in (values | {"db_host": "127.0.0.1", "db_port": "3306"}).items():
            number = ["-p"] if key == "db_port" else []
            self.bench.ok("set-config", "-g", *number, key, value)

    def _initialise(self, revision: str) -> None:
        folder = self.bench.sites / "s1"
        if folder.exists() and self.marker("migrated", revision).exists():
            return
        # Written, never looked at, and left behind when the command is handed over to.
        (self.bench.sites / f".lock.init_{revision}").touch()
        if not folder.exists():
            names = {"--db-root-password": "DB_ROOT_PASS", "--admin-password": "ADMIN_PASS", "--db-password": "DB_PASS"}
            secrets = [word for option, name in names.items() for word in (option, self.fleet.canaries[name])]
            self.bench.ok("new-site", "s1", "--force", "--db-name", "shop", "--no-mariadb-socket", *secrets)
            self.bench.ok("use", "s1")
            self._touch("apps_installed", revision)
        self.bench.ok("--site", "s1", "install-app", "demo_app")

    def _migrate(self) -> None:
        self.bench.ok("--site", "s1", "migrate")

    def _install(self) -> None:
        # It cannot read the list of apps, takes all of them for missing, and migrates once more.
        self.bench.ok("--site", "s1", "install-app", "demo_app")
        self._migrate()

    def _build(self) -> None:
        (self.bench.sites / "assets" / ".webassets-cache").unlink(missing_ok=True)
        self.bench.ok("build", "--production")
