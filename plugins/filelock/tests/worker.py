"""A process of its own with one client, told what to do line by line; answers each line with one line of JSON."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

from coordinate._identity import mint
from coordinate.backend import StoreSettings
from coordinate.errors import AlreadyDone, CoordinateError, StaleToken
from coordinate.types import Claim, Grant, Granted, MarkerRecord, MarkerState
from coordinate.url import parse
from coordinate_filelock import tokens
from coordinate_filelock.backend import FileBackend

url, channel = sys.argv[1], int(sys.argv[2])
backend = FileBackend.open(parse(url), StoreSettings(namespace="test"))
held: dict[str, Grant] = {}


def acquire(name: str, floor: str = "0") -> int:
    """Return the token, or 0."""
    answer = backend.acquire(name, mint(), 30, floor=int(floor))
    if isinstance(answer, Granted):
        held[name] = answer.grant
        return answer.grant.token
    return 0


def renew(name: str) -> str:
    """Return what the renewal says."""
    (answer,) = backend.renew([held[name]])
    return f"{type(answer).__name__} {getattr(getattr(answer, 'reason', None), 'name', '')}".strip()


def release(name: str) -> bool:
    """Give back."""
    return backend.release(held.pop(name))


def hand_over(name: str) -> int:
    """Send the lease's descriptors, as a guardian gets them."""
    with socket.socket(fileno=os.dup(channel)) as line:
        return socket.send_fds(line, [b"x"], list(backend.descriptors(held[name])))


def rounds(name: str, number: str, referee: str) -> list[int]:
    """Get and give back many times; a file that exists exclusively is the referee."""
    tokens = []
    while len(tokens) < int(number):
        token = acquire(name)
        if token:
            os.close(os.open(referee, os.O_CREAT | os.O_EXCL))
            tokens.append(token)
            Path(referee).unlink()
            release(name)
    return tokens


def die(call: str, number: str) -> int:
    """Be killed at the so manieth call to the system of this kind, just before it is made."""
    tokens.BLOCK = 64
    left, real = [int(number)], getattr(os, call)

    def counted(*args: object, **options: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(os, call, counted)
    return 0


def acquire_often(name: str, told: str) -> int:
    """Get, give back and get; each token is told before anything else happens; then end."""
    file = Path(told).open("ab", buffering=0)  # noqa: SIM115 -- it ends with this process
    for _ in range(tokens.BLOCK + 2):
        file.write(b"%d\n" % acquire(name))
        release(name)
    sys.exit(0)


def lead(scope: str, first: str, count: str) -> list[tuple[int, str]]:
    """Claim with many tokens, write one done under each; return what was acknowledged."""
    acknowledged = []
    for token in range(int(first), int(first) + 4 * int(count), 4):
        step = f"s{token // 12}"
        try:
            backend.claim(scope, Claim(token, mint()))
            backend.put_marker(scope, MarkerRecord(step, "r", MarkerState.DONE, token), token)
        except (StaleToken, AlreadyDone):
            continue
        acknowledged.append((token, step))
    return acknowledged


def follow(scope: str, count: str) -> list[str]:
    """Read many times; return each step that was done once and not the same later."""
    seen: dict[str, int] = {}
    lost = []
    for _ in range(int(count)):
        found = {record.step: record.token for record in backend.markers(scope).records}
        lost += [step for step, token in seen.items() if found.get(step) != token]
        seen.update(found)
    return lost


COMMANDS = {
    call.__name__: call for call in (acquire, renew, release, hand_over, rounds, die, acquire_often, lead, follow)
}
print(json.dumps("ready"), flush=True)  # noqa: T201 -- this is its answer
for line in sys.stdin:
    verb, *words = line.split()
    try:
        answer: object = COMMANDS[verb](*words)
    except CoordinateError as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), flush=True)  # noqa: T201 -- as above
