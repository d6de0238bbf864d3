"""A process of its own that leads or waits, told on the command line; says what happens in lines of JSON.

member.py URL hold NAME      acquire, say the token, hold until killed
member.py URL wait NAME      say "waiting" and then the token, hold until killed
member.py URL idle SECONDS   hold a lease and wait for another; say what of a core that cost, as a fraction
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time

from coordinate import connect

logging.getLogger("coordinate").addHandler(logging.NullHandler())
TTL = 3.0


def say(word: object) -> None:
    """Print one answer."""
    print(json.dumps(word), flush=True)  # noqa: T201 -- the tests read it


def main(url: str, task: str, subject: str) -> None:
    """Do it."""
    with connect(url, ttl=TTL) as coordinator:
        if task == "idle":
            coordinator.lease("own", ttl=60).acquire(30)
            waiter = threading.Thread(target=coordinator.lease("taken").acquire, args=(600,), daemon=True)
            waiter.start()
            sys.stdin.readline()
            began = time.process_time()
            time.sleep(float(subject))
            say((time.process_time() - began) / float(subject))
            return
        lease = coordinator.lease(subject)
        if task == "wait":
            assert not lease.try_acquire()
            say("waiting")
        lease.acquire(120)
        say(lease.token)
        sys.stdin.readline()


main(*sys.argv[1:])
