"""Every error this library raises, in one tree.

::

    CoordinateError
    ├── ConfigError (ValueError)         a URL, variable, name or timing that cannot work; nothing was tried
    │   └── PluginError                  no, a broken, or more than one plugin for a URL scheme
    ├── BackendUnavailable (ConnectionError)  no usable answer: unreachable, timed out, or reply lost
    │   └── CredentialsUnavailable       the URL's credential provider failed; the store was not asked
    ├── AcquireTimeout (TimeoutError)    somebody else held the lease for as long as we were told to wait
    ├── Contended                        it is somebody else's turn, and we were told not to stand in line
    ├── WaitTimeout (TimeoutError)       any other wait reached its deadline
    ├── LeaseLost                        the lease is no longer ours: stop the work it protected
    │   └── LeaseInDoubt                 the connection that keeps it is interrupted: it may be ours again soon
    ├── StaleToken                       a newer leader has claimed the scope; nothing was written
    ├── AlreadyDone                      the step is done for this revision; nothing was written
    ├── StepFailed                       a step is given up: its failure budget is spent, or it was refused
    ├── StepRefused                      raised by an action: no attempt of anybody can help
    ├── StepDeclined                     raised by an action: this member cannot do it, another one may
    ├── CommandFailed                    a guarded command ended with a code other than 0
    ├── CorruptRecord (ValueError)       a stored record cannot be understood
    ├── Unsupported                      the store does not declare a capability that was asked for
    └── Interrupted                      a signal asked this process to stop waiting or working

Drivers' own errors never leave a backend; they are the ``__cause__`` of these. No message carries a password.
All errors can be pickled; their fields are their constructor arguments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinate.types import LeaseRecord, Loss, MarkerRecord

__all__ = [
    "AcquireTimeout",
    "AlreadyDone",
    "BackendUnavailable",
    "CommandFailed",
    "ConfigError",
    "Contended",
    "CoordinateError",
    "CorruptRecord",
    "CredentialsUnavailable",
    "Interrupted",
    "LeaseInDoubt",
    "LeaseLost",
    "PluginError",
    "StaleToken",
    "StepDeclined",
    "StepFailed",
    "StepRefused",
    "Unsupported",
    "WaitTimeout",
]


class CoordinateError(Exception):
    """Base of all errors of this library; never raised itself."""

    exit_code = 70


class ConfigError(CoordinateError, ValueError):
    """A URL, environment variable, name or timing that cannot work. Nothing was tried yet."""

    exit_code = 78


class PluginError(ConfigError):
    """No plugin, a broken plugin or more than one plugin for a URL scheme."""


class BackendUnavailable(CoordinateError, ConnectionError):
    """The store gave no usable answer. What was asked may or may not have happened."""

    exit_code = 69


class CredentialsUnavailable(BackendUnavailable):
    """The credential provider that the URL names failed, so the store was not asked.

    The message names the provider and the type and place of its error, never its text.
    """


class AcquireTimeout(CoordinateError, TimeoutError):
    """The lease was held by somebody else until the wait ended."""

    exit_code = 75


class Contended(CoordinateError):
    """It is somebody else's turn at this instant, and we were told not to wait for it (``blocking=False``).

    No failure: nothing was tried that counts against anybody, and a later call may find the work done, or free. Not
    promised: that it still is somebody else's by the time that this is raised.

    Args:
        message: what is not ours, and who or what is in the way.
        holder: who holds the lease; None: the store does not say, is quarantined, or it is not the lease.
        since: wall-clock seconds at which the step that is under way was begun; 0: none is, or nobody looked.
        retry_after: seconds before which it makes no sense to come again; 0: it may be free at any instant.
    """

    exit_code = 75

    def __init__(
        self, message: str, holder: LeaseRecord | None = None, since: float = 0.0, retry_after: float = 0.0
    ) -> None:
        super().__init__(message, holder, since, retry_after)
        self.message = message
        self.holder = holder
        self.since = since
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class WaitTimeout(CoordinateError, TimeoutError):
    """A wait other than for a lease reached its deadline."""

    exit_code = 124


class LeaseLost(CoordinateError):
    """The lease is no longer ours; the work that it protected has to stop.

    Args:
        message: what happened, for people.
        loss: the frozen reason, or None when the lease was never acquired.
    """

    exit_code = 79

    def __init__(self, message: str, loss: Loss | None = None) -> None:
        super().__init__(message, loss)
        self.message = message
        self.loss = loss

    def __str__(self) -> str:
        return self.message


class LeaseInDoubt(LeaseLost):
    """The connection that keeps the lease is interrupted: nothing may be begun under it at this instant.

    The lease is not lost yet: a later `check` may succeed. Work that is under way may go on until the lease is lost.
    """


class StaleToken(CoordinateError):
    """A leader with a newer token has claimed the scope; the write was refused and nothing changed.

    Args:
        message: what was refused, for people.
        floor: the highest claimed token; a new grant must be greater.
    """

    exit_code = 79

    def __init__(self, message: str, floor: int = 0) -> None:
        super().__init__(message, floor)
        self.message = message
        self.floor = floor

    def __str__(self) -> str:
        return self.message


class AlreadyDone(CoordinateError):
    """The step is recorded as done for this revision; the write was refused and nothing changed."""


class StepRefused(CoordinateError):
    """No attempt of anybody can help until something outside is put right.

    For an action, `verify` or `settled` of a step to raise. It is recorded once for the fleet: nobody that runs now
    tries again, and every member ends with `StepFailed`, whose record carries the exit code. What was done before
    it was raised is not undone. A process that starts later than the back-off gets one new attempt.

    Args:
        message: why, and what to do about it; recorded, so without secrets.
        exit_code: what programs end with.
    """

    def __init__(self, message: str, exit_code: int = 76) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class StepDeclined(CoordinateError):
    """This member cannot do the step, another one may.

    For an action, `verify` or `settled` of a step to raise, before any effect. It counts against no budget. This
    member does not lead again until somebody else has done the step; it keeps waiting, and ends with this error
    if nobody does. Not promised: that somebody else can.

    Args:
        message: why, and what to do about it; recorded, so without secrets.
        exit_code: what programs end with.
        patience: seconds of standstill, in which nobody is at work on the plan, after which this member ends;
            0: at once. The time limit of the whole wait holds besides.
    """

    def __init__(self, message: str, exit_code: int = 76, patience: float = math.inf) -> None:
        super().__init__(message, exit_code, patience)
        self.message = message
        self.exit_code = exit_code
        self.patience = patience

    def __str__(self) -> str:
        return self.message


class StepFailed(CoordinateError):
    """A step is given up: the failure budget that the fleet shares for it is spent, or it was refused for good.

    Args:
        message: what happened, for people, with the step's last lines of output.
        record: the marker as stored.
    """

    exit_code = 76

    def __init__(self, message: str, record: MarkerRecord | None = None) -> None:
        super().__init__(message, record)
        self.message = message
        self.record = record

    def __str__(self) -> str:
        return self.message


class CommandFailed(CoordinateError):
    """A guarded command ended with a code other than 0.

    Args:
        message: which command and how it ended; never its arguments, which may be private.
        code: exit code, or 128 + signal number.
        output: the last lines that it printed.
    """

    def __init__(self, message: str, code: int = 1, output: str = "") -> None:
        super().__init__(message, code, output)
        self.message = message
        self.code = code
        self.output = output

    def __str__(self) -> str:
        return self.message


class CorruptRecord(CoordinateError, ValueError):
    """A stored record cannot be understood: damaged, or written by a newer version."""


class Unsupported(CoordinateError):
    """The store does not declare a capability that was asked for."""

    exit_code = 78


class Interrupted(CoordinateError):
    """A signal asked this process to stop waiting or working.

    Args:
        message: which signal, for people.
        signum: its number; programs end with 128 + signum.
    """

    def __init__(self, message: str, signum: int = 15) -> None:
        super().__init__(message, signum)
        self.message = message
        self.signum = signum

    def __str__(self) -> str:
        return self.message
