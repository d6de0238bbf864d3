"""What the bench's own Python runs (3.10 to 3.14, standard library only): this folder, as ``python FOLDER NUMBER``.

Its single argument is the number of an inherited socket. The first line read from it is a JSON request; answers are
JSON lines on the same socket. Nothing secret is in its arguments or its environment, and what a bench command prints
passes a filter here, before anybody else reads it, that replaces the request's secrets by ``***``. A boot starts it
many times, so it imports little.

Jobs: ``bench`` runs a framework command in process; ``inspect`` says what is there and changes nothing; ``settle``
ends database sessions that an earlier attempt left behind; ``record`` writes a row of our record in the database;
``prepare`` makes the database of a new site, and ``discard`` takes back what a creation of ours made.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from contextlib import suppress

import shim_servers

TYPE_CHECKING = False  # the real one costs an import of typing at every start
if TYPE_CHECKING:
    from typing import Any

    from shim_servers import Connection, Json

LONGEST = 120
"""Seconds after which a job that is no bench command ends, whatever it waits for."""


def main() -> None:
    """Read the request and do the job."""
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)  # noqa: FBT003 - it has no keyword
    with open(channel, "rb", buffering=0, closefd=False) as stream:  # unbuffered: what follows the line stays there
        request = json.loads(stream.readline())
    if request["job"] == "bench":
        import shim_acting  # noqa: F401, PLC0415 - each job imports what it needs, before the path changes
        import shim_output  # noqa: PLC0415

        use_the_benchs_modules()
        sys.exit(shim_output.filtered(request.get("secrets", []), lambda: bench(channel, request)))
    signal.alarm(LONGEST)
    say(channel, answer_to(request, channel))


def use_the_benchs_modules() -> None:
    """Let this folder not hide the bench's modules: python -m puts the current folder first."""
    sys.path[0] = os.getcwd()  # noqa: PTH109 - importing pathlib would delay every start


def answer_to(request: Json, channel: int) -> Json:
    """Return what a job other than ``bench`` says."""
    if request["job"] == "inspect":
        import shim_looking  # noqa: PLC0415 - as above

        use_the_benchs_modules()
        return shim_looking.inspect(request)
    import shim_acting  # noqa: PLC0415 - as above

    use_the_benchs_modules()
    if request["job"] == "settle":
        return shim_acting.settle(request)
    jobs = {"record": shim_acting.write_record, "prepare": shim_acting.prepare, "discard": shim_acting.discard}
    return jobs[request["job"]](request, channel)


def say(channel: int, answer: Json) -> None:
    """Send one answer."""
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(channel, data) :]


def bench(channel: int, request: Json) -> None:
    """Run a framework command; every database connection is made known, and noted by the other side, before its use."""
    for name in shim_servers.DRIVERS:
        with suppress(ImportError):
            announce_connections(importlib.import_module(name), channel, request.get("creation"))
    warnings.simplefilter("ignore")
    helper = importlib.import_module("frappe.utils.bench_helper")
    sys.argv = [str(helper.__file__), "frappe", *request["argv"]]
    helper.main()


def announce_connections(driver: Any, channel: int, creation: Json | None) -> None:  # noqa: ANN401 - any driver
    """Wrap the driver's connect(); ``creation``: what is to be in a database that the command has just made."""
    connect = driver.connect
    server = shim_servers.Postgres() if driver.__name__ == "psycopg2" else shim_servers.MariaDB()

    def announcing(*args: object, **options: object) -> Connection:
        """Connect, and have it written down, before anybody gets the connection."""
        connection: Connection = connect(*args, **options)
        shim_servers.announce(server, connection, channel)
        if creation is not None:
            import shim_acting  # noqa: PLC0415 - loaded already

            shim_acting.note_creation(server, connection, creation)
        return connection

    driver.connect = announcing


if __name__ == "__main__":
    main()
