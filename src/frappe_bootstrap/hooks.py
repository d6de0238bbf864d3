"""Hooks around the steps: programs of the operator, functions of plugins; all of them under the lease.

A hook before a step comes before the first effect of the step itself: when it fails, the database, the maintenance
flag and the record in the database are as they were. It is not called for a migration that is refused: a refusal is
looked at again and again, and each time there would be one more backup. A hook after a step comes when the step's
result is there, and before the step is recorded as done: when it fails, the step is done again, so hooks must be
re-runnable, as steps are.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from coordinate.errors import CommandFailed
from frappe_bootstrap.settings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    import pluggy

    from coordinate.steps import Step, StepContext
    from frappe_bootstrap.work import Work

_OF_DATABASES = ("migrate", "apps")
"""The steps that look at the database anyway; a hook of any other one does not need it to answer."""


def around(step: Step, work: Work, check: Callable[[StepContext], object] | None = None) -> Step:
    """Return a step with its hooks; ``check`` comes before them and refuses what must not begin."""

    def action(context: StepContext) -> None:
        """Run what comes before, the step, and what comes after."""
        if check is not None:
            check(context)
        _call("pre", context, work)
        step.action(context)
        if ("post", step.name) in work.settings.operation.hooks or plugins().get_plugins():
            reason = step.verify() if step.verify is not None else None
            if reason is not None:
                message = f"{step.name} ended well but its result is not there: {reason}"
                raise CommandFailed(message, 1, message)
            _call("post", context, work)

    return step._replace(action=action)


def _call(phase: str, context: StepContext, work: Work) -> None:
    context.check()
    chosen, step = work.settings, context.record.step
    hooks = plugins().hook
    call = hooks.frappe_bootstrap_before_step if phase == "pre" else hooks.frappe_bootstrap_after_step
    call(step=step, site=chosen.site, revision=chosen.revision, token=context.lease.token, check=context.check)
    context.check()
    program = chosen.operation.hooks.get((phase, step))
    unfinished = _unfinished(context, work) if program is not None and step in _OF_DATABASES else {}
    if program is not None or plugins().get_plugins():
        # They may change what we have seen.
        work.bench.forget()
    if program is None:
        return
    facts = {
        "FRAPPE_SITE": chosen.site,
        "BOOTSTRAP_REVISION": chosen.revision,
        "BOOTSTRAP_TOKEN": str(context.lease.token),
        "BOOTSTRAP_STEP": step,
        **unfinished,
    }
    context.run(
        [program],
        env={**child_environment(os.environ), **facts},
        cwd=str(chosen.bench),
        name=f"{phase.upper()}_{step.upper()}_HOOK",
        on_line=lambda text: work.log(step, f"{phase} hook: {text}"),
        timeout=chosen.operation.hook_timeout,
    )


def _unfinished(context: StepContext, work: Work) -> dict[str, str]:
    """Return the revision that an unfinished migration in the database was bringing, as it is now; "" if none is."""
    migrating = work.bench.known_state(context).record.migrating
    return {"BOOTSTRAP_MIGRATING": "" if migrating is None else migrating.revision}


@functools.cache
def plugins() -> pluggy.PluginManager:
    """Return the installed hooks; loaded by whoever leads, once."""
    import pluggy  # noqa: PLC0415 -- followers need none of it

    from frappe_bootstrap import hookspecs  # noqa: PLC0415

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints(hookspecs.GROUP)
    manager.check_pending()
    return manager
