"""``frappe-bootstrap [--] COMMAND...``: bring the site to this image's revision, once for all replicas.

Then COMMAND replaces this process (BOOTSTRAP_MODE=exec), or runs under it (supervise); it gets the environment
without the secrets that were meant for us. Without COMMAND the program ends when the revision is ready. All settings
come from the environment, see `frappe_bootstrap.settings`. These words are subcommands; ``--`` before them makes them
a COMMAND::

    live            is the process of this container alive? A liveness probe: it stays true while it waits or works
    ready           does this container serve? A readiness probe
    status          of each site: its state, who leads, each step with its times, last lines of failures; --json
    plan            what a start would do now, and why; changes nothing
    repair          SITE: fill a half-made site again, nothing in it is needed; --maintenance SITE: open a site again
                    that a failed upgrade has left closed
    adopt           SITE: take a healthy site that somebody else has made as ours
    retry           SITE: let the fleet try again at once what it has given up at this revision; --done: and do again
                    what is recorded as done
    release-volume  give the volume back to the original image: its own folder of assets in its place
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from frappe_bootstrap import codes

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROBES = ("live", "ready")
_COMMANDS = ("status", "plan", "repair", "adopt", "retry", "release-volume")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program. Each part is imported when it is wanted: probes have to be quick."""
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else ""
    if first in _PROBES:
        from frappe_bootstrap import probes  # noqa: PLC0415

        sys.exit(probes.main(first))
    if first in _COMMANDS:
        from frappe_bootstrap import commands  # noqa: PLC0415

        sys.exit(commands.main(first, words[1:]))
    if first in {"-h", "--help"}:
        from frappe_bootstrap import settings  # noqa: PLC0415

        sys.stdout.write(f"{__doc__}\nExit codes:\n\n{codes.table()}\n\n{settings.__doc__}")
        sys.exit(0)
    if first.startswith("-") and first != "--":
        sys.stderr.write(f"usage: frappe-bootstrap [--] COMMAND... | {' | '.join((*_PROBES, *_COMMANDS))}\n")
        sys.exit(codes.EXIT_USAGE)
    from frappe_bootstrap import entrypoint  # noqa: PLC0415

    entrypoint.main(words[1:] if first == "--" else words)


if __name__ == "__main__":
    main()
