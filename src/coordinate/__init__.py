"""Leases with fencing tokens, durable step markers, and work that happens exactly one at a time.

Importing this package loads no client library and next to nothing else: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from coordinate._version import __version__

if TYPE_CHECKING:
    from coordinate.coordinator import Coordinator, connect
    from coordinate.errors import (
        AcquireTimeout,
        BackendUnavailable,
        CommandFailed,
        ConfigError,
        Contended,
        CoordinateError,
        Interrupted,
        LeaseLost,
        StaleToken,
        StepDeclined,
        StepFailed,
        StepRefused,
        WaitTimeout,
    )
    from coordinate.lease import Lease
    from coordinate.marker import Markers
    from coordinate.steps import Outcome, Plan, Step
    from coordinate.types import Capability, Loss, LossReason, MarkerState

__all__ = [
    "AcquireTimeout",
    "BackendUnavailable",
    "Capability",
    "CommandFailed",
    "ConfigError",
    "Contended",
    "CoordinateError",
    "Coordinator",
    "Interrupted",
    "Lease",
    "LeaseLost",
    "Loss",
    "LossReason",
    "MarkerState",
    "Markers",
    "Outcome",
    "Plan",
    "StaleToken",
    "Step",
    "StepDeclined",
    "StepFailed",
    "StepRefused",
    "WaitTimeout",
    "__version__",
    "connect",
]

_HOME = {
    "coordinator": ("Coordinator", "connect"),
    "lease": ("Lease",),
    "marker": ("Markers",),
    "steps": ("Outcome", "Plan", "Step"),
    "types": ("Capability", "Loss", "LossReason", "MarkerState"),
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use."""
    if name not in __all__:
        message = f"module 'coordinate' has no attribute {name!r}"
        raise AttributeError(message)
    module = next((module for module, names in _HOME.items() if name in names), "errors")
    value: object = getattr(importlib.import_module(f"coordinate.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
