"""Becoming the command: with its environment and signals as it expects them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from frappe_bootstrap import settings
from frappe_bootstrap.codes import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frappe_bootstrap.reporting import Reporter
    from frappe_bootstrap.waiting import Stop


def hand_over(command: Sequence[str], reporter: Reporter, stop: Stop) -> NoReturn:
    """Become the command, with its environment and signals as it expects them."""
    environ = settings.child_environment(os.environ)
    reporter.line(f"starting {command[0]}")
    _reap()
    # A signal that comes from here on is the command's; one that came before still ends us.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    if stop.signum:
        sys.exit(128 + stop.signum)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        os.execvpe(command[0], list(command), environ)  # noqa: S606 -- becoming the command is the point
    except FileNotFoundError:
        reporter.line(f"{command[0]}: not found", level="ERROR")
        sys.exit(EXIT_NOT_FOUND)
    except OSError as error:
        reporter.line(f"{command[0]}: {error.strerror}", level="ERROR")
        sys.exit(EXIT_NOT_EXECUTABLE)


def _reap() -> None:
    """Take leave of processes that came to us as process 1; none of our own is left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
