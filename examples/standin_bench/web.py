"""A tiny web server in the place of gunicorn, to be run with the bench's Python in its sites folder.

    ../env/bin/python web.py --port 8000 [--site S] [--port-file F]

``/api/method/ping`` and ``/login`` answer as the real ones do from outside: 404 for an unknown Host, 503 in
maintenance, 500 while the database has no installed_apps. A request that ends in 500 leaves an idle
transaction open on the database, which is what makes ``new-site --force`` hang on the real bench.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import socketserver
import sys
from pathlib import Path
from typing import Any

# Connections of failed requests, kept open on purpose.
_FORGOTTEN: list[Any] = []


def _read(path: Path) -> dict[str, Any]:
    """Return a config file; one that is truncated in this instant counts as absent, which gives a 404."""
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded


def installed_apps(config: dict[str, Any]) -> list[str]:
    """Return the installed apps; when there are none, fail and forget to end the transaction."""
    pymysql = importlib.import_module("pymysql")
    connection = pymysql.connect(
        host=config.get("db_host") or "127.0.0.1",
        port=int(config.get("db_port") or 3306),
        user=config["db_name"],
        password=config["db_password"],
        database=config["db_name"],
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM `tabDocField`")
            query = "SELECT defvalue FROM `tabDefaultValue` WHERE parent = %s AND defkey = %s"
            cursor.execute(query, ("__global", "installed_apps"))
            apps: list[str] = json.loads(cursor.fetchone()[0])
    except Exception:
        _FORGOTTEN.append(connection)
        raise
    connection.close()
    return apps


class Handler(socketserver.StreamRequestHandler):
    """One request per connection."""

    only: str | None = None

    def handle(self) -> None:
        """Read the head of a request and answer."""
        words = self.rfile.readline().decode("latin-1").split()
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if len(words) > 1:
            host = headers.get("x-frappe-site-name") or headers.get("host", "").partition(":")[0]
            status, body = self.answer(words[1], host)
            payload = json.dumps(body).encode()
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(payload)}\r\n"
            self.wfile.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + payload)

    def answer(self, path: str, host: str) -> tuple[str, dict[str, Any]]:
        """Return status and body for a path of a site."""
        config = _read(Path(host, "site_config.json")) if host and "/" not in host else {}
        if not config or (self.only and host != self.only):
            return "404 Not Found", {"error": f"{host} does not exist"}
        config = _read(Path("common_site_config.json")) | config
        if config.get("maintenance_mode"):
            return "503 Service Unavailable", {"error": "SessionStopped"}
        if path not in ("/api/method/ping", "/login"):
            return "404 Not Found", {"error": path}
        try:
            apps = installed_apps(config)
            for app in apps if path == "/login" else ():
                importlib.import_module(app)
        except Exception as error:  # noqa: BLE001 - a page shows every failure as 500
            return "500 Internal Server Error", {"error": repr(error)}
        revision = os.environ.get("IMAGE_REV", "")
        return "200 OK", {"message": "pong", "site": host, "revision": revision, "pid": os.getpid()}


class Server(socketserver.ThreadingTCPServer):
    """A thread for each request."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    """Serve until SIGTERM, then exit 0."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--site", help="answer for this site only")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Handler.only = options.site
    with Server((options.host, options.port), Handler) as server:
        if options.port_file:
            fresh = options.port_file.with_name(options.port_file.name + ".new")
            fresh.write_text(str(server.server_address[1]))
            fresh.replace(options.port_file)
        server.serve_forever()


if __name__ == "__main__":
    main()
