"""A tiny Redis: enough words to stand for redis_cache and redis_queue where no Redis is installed.

    python redis_standin.py --port 0 --port-file F [--password P]

Keeps strings only and forgets them when it ends; no expiry, scripts or blocking words, so no leases. Words that read
a set or a list take a string for one: its parts between blanks.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import defaultdict
from pathlib import Path

Answer = bytes
OK = b"+OK\r\n"


def _bulk(value: bytes | None) -> Answer:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def _array(values: list[bytes]) -> Answer:
    return b"*%d\r\n" % len(values) + b"".join(_bulk(value) for value in values)


class Server:
    """The data, by database number."""

    def __init__(self, password: str = "") -> None:
        """Start empty."""
        self.password = password.encode()
        self.data: dict[int, dict[bytes, bytes]] = defaultdict(dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client until it leaves."""
        client = Client(self)
        try:
            while words := await self._command(reader):
                writer.write(client.answer(words))
                await writer.drain()
                if words[0].upper() == b"QUIT":
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _command(reader: asyncio.StreamReader) -> list[bytes]:
        line = await reader.readline()
        if not line.startswith(b"*"):
            return line.split()
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        return words


class Client:
    """One connection: its database and whether it logged in."""

    def __init__(self, server: Server) -> None:
        """Start at database 0."""
        self.server = server
        self.number = 0
        self.trusted = not server.password

    def answer(self, words: list[bytes]) -> Answer:
        """Return the reply to one command."""
        name, arguments = words[0].upper().decode(), words[1:]
        if not self.trusted and name not in ("AUTH", "QUIT"):
            return b"-NOAUTH Authentication required.\r\n"
        action = getattr(self, f"_do_{name.lower()}", None)
        if action is None:
            return f"-ERR unknown command '{name}'\r\n".encode()
        try:
            reply: Answer = action(*arguments)
        except TypeError:
            return f"-ERR wrong number of arguments for '{name.lower()}' command\r\n".encode()
        return reply

    def _do_ping(self, text: bytes | None = None) -> Answer:
        return b"+PONG\r\n" if text is None else _bulk(text)

    def _do_auth(self, *credentials: bytes) -> Answer:
        if not self.server.password:
            return b"-ERR AUTH <password> called without any password configured for the default user.\r\n"
        if credentials[-1:] != (self.server.password,):
            return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        self.trusted = True
        return OK

    def _do_select(self, number: bytes) -> Answer:
        self.number = int(number)
        return OK

    def _do_get(self, key: bytes) -> Answer:
        return _bulk(self.server.data[self.number].get(key))

    def _do_set(self, key: bytes, value: bytes) -> Answer:
        self.server.data[self.number][key] = value
        return OK

    def _do_del(self, *keys: bytes) -> Answer:
        return b":%d\r\n" % sum(self.server.data[self.number].pop(key, None) is not None for key in keys)

    def _do_exists(self, *keys: bytes) -> Answer:
        return b":%d\r\n" % sum(key in self.server.data[self.number] for key in keys)

    def _do_smembers(self, key: bytes) -> Answer:
        return _array((self.server.data[self.number].get(key) or b"").split())

    def _do_lrange(self, key: bytes, *_: bytes) -> Answer:
        return self._do_smembers(key)

    def _do_zrangebyscore(self, key: bytes, *_: bytes) -> Answer:
        return self._do_smembers(key)

    def _do_flushall(self) -> Answer:
        self.server.data.clear()
        return OK

    def _do_client(self, *_: bytes) -> Answer:
        return OK

    def _do_quit(self) -> Answer:
        return OK


async def run(port: int, port_file: Path | None, password: str) -> None:
    """Serve until SIGTERM; the port file appears, whole, once connections are accepted."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener = await asyncio.start_server(Server(password).serve, "127.0.0.1", port)
    if port_file:
        fresh = port_file.with_name(port_file.name + ".new")
        fresh.write_text(str(listener.sockets[0].getsockname()[1]))
        fresh.replace(port_file)
    await stop.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--password", default="")
    options = parser.parse_args()
    asyncio.run(run(options.port, options.port_file, options.password))


if __name__ == "__main__":
    main()
