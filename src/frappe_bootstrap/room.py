"""The waiting room: what a container that is not serving yet answers on the web port, and to probes over HTTP.

A person gets a page that says what goes on, a program a proper 503 with Retry-After; nobody a refused connection.
Promised: it never blocks the boot, shows nothing that is not in the log or in the markers (both are without secrets),
and leaves its port at once for the command that serves. Not promised: that a port that is taken becomes free; then the
boot goes on without the room, and the log says so.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING, Self

import msgspec

from frappe_bootstrap import room_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from frappe_bootstrap.room_page import Snapshot

RETRY_AFTER = 5
"""Seconds after which browsers and programs come again."""
_FRESH = 1.0
"""Seconds for which a look at the markers serves all who ask."""
_IDLE = 10.0
"""Seconds after which a connection without a request is closed."""
_LONGEST_BODY = 1 << 20
"""Bytes of an unwanted request body that are read before the answer."""
_PROGRAMS = ("/api/", "/assets/", "/files/", "/private/", "/socket.io/")
HEALTH_PATHS = ("/livez", "/readyz", "/status.json", "/metrics")


class Room:
    """Serves a snapshot on up to two ports until closed.

    Args:
        web_port: page and 503 for everything; 0: not served.
        health_port: ``/livez``, ``/readyz``, ``/status.json``, ``/metrics``; page and 503 for everything else, so that
            a service of its own may show it, also while the command of a ready container is not up yet; 0: not served.
        look: returns what is to be shown; called from the room's own threads, at most once a second.
        log: gets a line when a port cannot be had.
    """

    def __init__(
        self, web_port: int, health_port: int, look: Callable[[], Snapshot], log: Callable[[str], object]
    ) -> None:
        self._look = look
        self._log = log
        self._lock = threading.Lock()
        self._seen: Snapshot | None = None
        self._seen_at = 0.0
        self._web = self._serve(web_port)
        self._health = self._serve(health_port) if health_port != web_port else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave_the_web()
        self._close(self._health)

    def leave_the_web(self) -> None:
        """Give the web port to the command that serves; the health port stays."""
        self._close(self._web)
        self._web = None

    def snapshot(self) -> Snapshot:
        """Return what is to be shown, not older than a second."""
        with self._lock:
            now = time.monotonic()
            if self._seen is None or now - self._seen_at > _FRESH:
                self._seen, self._seen_at = self._look(), now
            return self._seen

    def _serve(self, port: int) -> _Server | None:
        if not port:
            return None
        try:
            server = _Server(port, self)
        except OSError as error:
            self._log(f"port {port} cannot be served while this container waits: {error.strerror}")
            return None
        threading.Thread(target=server.serve_forever, args=(0.1,), name="waiting-room", daemon=True).start()
        return server

    @staticmethod
    def _close(server: _Server | None) -> None:
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    """One port, on all addresses of both families where the machine has both."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, room: Room) -> None:
        self.room = room
        self.address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        super().__init__(("::" if self.address_family == socket.AF_INET6 else "", port), _Handler)

    def server_bind(self) -> None:
        """Listen on IPv4, too."""
        if self.address_family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's: it asks the name service for our own name, which may take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "frappe-bootstrap", self.socket.getsockname()[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever went away in the middle of an answer is no event."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "frappe-bootstrap"
    sys_version = ""
    timeout = _IDLE
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path in HEALTH_PATHS:
            self._health(path)
        else:
            self._wait_please(path)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815 -- the names are http.server's

    def log_message(self, *_: object) -> None:
        """Write no access log."""

    def _health(self, path: str) -> None:
        if path == "/livez":
            self._say(200, "text/plain", b"ok\n")
            return
        shown = self.server.room.snapshot()
        if path == "/readyz":
            self._say(200 if shown.ready else 503, "text/plain", f"{shown.state}\n".encode())
        elif path == "/status.json":
            self._say(200, "application/json", msgspec.json.encode(shown) + b"\n")
        else:
            self._say(200, "text/plain; version=0.0.4", room_page.metrics(shown).encode())

    def _wait_please(self, path: str) -> None:
        """Say that the site is not there yet, in the way that the other side understands."""
        shown = self.server.room.snapshot()
        if not path.startswith(_PROGRAMS) and "text/html" in self.headers.get("Accept", ""):
            self._say(503, "text/html; charset=utf-8", room_page.html(shown, RETRY_AFTER).encode())
        elif path.startswith("/api/") or "json" in self.headers.get("Accept", ""):
            body = {"exc_type": "SessionStopped", "message": room_page.headline(shown), "revision": shown.revision}
            self._say(503, "application/json", msgspec.json.encode(body) + b"\n")
        else:
            self._say(503, "text/plain; charset=utf-8", f"{room_page.headline(shown)}\n".encode())

    def _swallow_body(self) -> None:
        """Read what was sent with the request: to close with it unread may reset the connection before our answer."""
        length = self.headers.get("Content-Length", "0")
        left = min(int(length), _LONGEST_BODY) if length.isascii() and length.isdigit() else 0
        while left > 0 and (data := self.rfile.read(min(left, 65536))):
            left -= len(data)

    def _say(self, code: int, kind: str, body: bytes) -> None:
        self.close_connection = True
        self._swallow_body()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if code == 503:  # noqa: PLR2004 -- service unavailable
            self.send_header("Retry-After", str(RETRY_AFTER))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
