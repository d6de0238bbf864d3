"""A stand-in for one Sentinel that names whatever a test wants: for answers that real ones give only by bad luck."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = b"main"


class FakeSentinel(socketserver.ThreadingTCPServer):
    """Names one port of this host as the primary of the service ``main``.

    Args:
        named: the port; None for a Sentinel that knows no service.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, named: int | None) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.named = named
        self.asked = 0
        self.password = b""

    @property
    def address(self) -> str:
        """Return host and port of this Sentinel."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Talk(socketserver.StreamRequestHandler):
    server: FakeSentinel

    def handle(self) -> None:
        trusted = not self.server.password
        with contextlib.suppress(OSError):
            while count := self.rfile.readline():
                words = [self._word() for _ in range(int(count[1:]))]
                trusted = trusted or (words[0] == b"AUTH" and words[-1] == self.server.password)
                self.wfile.write(self._answer(words) if trusted else b"-NOAUTH Authentication required.\r\n")

    def _word(self) -> bytes:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:-2]

    def _answer(self, words: list[bytes]) -> bytes:
        if words[0] != b"SENTINEL":
            return b"+OK\r\n"
        self.server.asked += 1
        named = self.server.named
        if named is None or words[2] != SERVICE:
            return b"*-1\r\n"
        port = b"%d" % named
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port)


@contextlib.contextmanager
def fake_sentinel(named: int | None) -> Iterator[FakeSentinel]:
    """Yield a running one; end it afterwards."""
    with FakeSentinel(named) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
