"""Output of a bench command: it passes a filter that replaces secrets before anybody else reads it."""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress

TYPE_CHECKING = False  # the real one costs an import of typing at every start
if TYPE_CHECKING:
    from collections.abc import Callable


def spellings(secrets: list[str]) -> list[bytes]:
    """Return the secrets in the forms in which programs print them, longest first."""
    from urllib.parse import quote  # noqa: PLC0415 - as above; only commands need it

    forms = {""}
    for secret in secrets:
        forms |= {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    return sorted((form.encode() for form in forms - {""}), key=len, reverse=True)


def redact(data: bytes, words: list[bytes]) -> bytes:
    """Replace every secret."""
    for word in words:
        data = data.replace(word, b"***")
    return data


def filtered(secrets: list[str], work: Callable[[], object]) -> int:
    """Run ``work`` in a child whose whole output passes the filter; return how it ended, dying the same way."""
    reader, writer = os.pipe()
    # A signal to the process group reaches the child; the filter stays to read its last words.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        become_command(writer)
        os.close(reader)
        work()
        return 0
    os.close(writer)
    status = pump(reader, child, spellings(secrets))
    if os.WIFSIGNALED(status):
        killer = os.WTERMSIG(status)
        if killer != signal.SIGKILL:
            signal.signal(killer, signal.SIG_DFL)
        os.kill(os.getpid(), killer)
    return os.WEXITSTATUS(status)


def become_command(writer: int) -> None:
    """Send what this process and its children print into the filter; react to signals as usual."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)
    os.close(writer)


def pump(reader: int, child: int, words: list[bytes]) -> int:
    """Copy lines until the child has ended and nothing more is there to read; return its status."""
    status, rest, is_open = None, b"", True
    while is_open or status is None:
        if status is None:
            pid, value = os.waitpid(child, 0 if not is_open else os.WNOHANG)
            status = value if pid else None
        patience = 0 if status is not None else 0.05
        if is_open and select.select([reader], [], [], patience)[0]:
            data = os.read(reader, 65536)
            rest += data.replace(b"\r", b"\n")
            is_open = bool(data)
        elif status is not None:
            is_open = False  # a descendant that went away holds the pipe: its words are nobody's
        head, newline, rest = rest.rpartition(b"\n")
        if not is_open:
            head, newline, rest = head + newline + rest, b"", b""
        with suppress(BrokenPipeError):
            write_all(redact(head + newline, words))
    return status


def write_all(data: bytes, descriptor: int = 1) -> None:
    """Write everything; by default to the original standard output."""
    while data:
        data = data[os.write(descriptor, data) :]
