"""A few words with a Redis server of the framework, without its client library where that can be avoided."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from typing import BinaryIO
    from urllib.parse import SplitResult

_TIMEOUT = 3.0
_PORT = 6379
_LONGEST_LINE = 4096
_LONGEST_VALUE = 64 << 20


def ask(url: str, *words: str) -> bytes | None:
    """Send one command after login; return its text, or None for nil.

    Raises:
        OSError: the server does not answer, or refuses; the text never holds a password.
    """
    parts = urlsplit(url)
    plain = parts.scheme == "redis" and not parts.query
    return _ask(parts, words) if plain else _ask_by_client(url, words)


def _ask(parts: SplitResult, words: tuple[str, ...]) -> bytes | None:
    """Talk over a plain socket: to import the client library costs more than the rest of our start."""
    commands = [words]
    if database := parts.path.strip("/"):
        commands.insert(0, ("SELECT", database))
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user or password:
        commands.insert(0, ("AUTH", user, password) if user else ("AUTH", password))
    answer: bytes | None = None
    with (
        socket.create_connection((parts.hostname or "", parts.port or _PORT), _TIMEOUT) as link,
        link.makefile("rb") as answers,
    ):
        for command in commands:
            encoded = [f"${len(word.encode())}\r\n{word}\r\n" for word in command]
            link.sendall(f"*{len(command)}\r\n{''.join(encoded)}".encode())
            answer = _answer(answers)
    return answer


def _answer(answers: BinaryIO) -> bytes | None:
    line = answers.readline(_LONGEST_LINE)
    if line[:1] in b"+:" and line:
        return line[1:].strip()
    if line.startswith(b"$"):
        size = int(line[1:])
        return None if size < 0 else answers.read(min(size, _LONGEST_VALUE) + 2)[:-2]
    raise OSError(line[1:].decode(errors="replace").strip() or "it closed the connection")


def _ask_by_client(url: str, words: tuple[str, ...]) -> bytes | None:
    """The same with all that a URL can say, TLS and its options among it."""
    import redis  # noqa: PLC0415 -- loaded when it is needed
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    try:
        with redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            answer = client.execute_command(*words)
    except redis.RedisError as error:
        raise OSError(str(error)) from error
    return answer if answer is None or isinstance(answer, bytes) else str(answer).encode()
