"""The hooks of plugins: functions that are called around each step, under the lease, in this process.

A plugin is a module with one or both of these functions, named by an entry point of the group
``frappe_bootstrap.hooks``::

    from frappe_bootstrap.hookspecs import hookimpl

    @hookimpl
    def frappe_bootstrap_before_step(step, site, revision, token, check):
        check()  # raises if the lease is lost: before each effect

A function that raises has the same consequence as a program that fails: before a step, the step has not begun; after
it, the step has failed. It cannot be stopped from outside; what may take long belongs into a program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = "frappe_bootstrap"
GROUP = "frappe_bootstrap.hooks"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def frappe_bootstrap_before_step(step: str, site: str, revision: str, token: int, check: Callable[[], None]) -> None:
    """Do something before a step of a site begins."""


@hookspec
def frappe_bootstrap_after_step(step: str, site: str, revision: str, token: int, check: Callable[[], None]) -> None:
    """Do something after a step's result was seen to be there, before it is recorded as done."""
