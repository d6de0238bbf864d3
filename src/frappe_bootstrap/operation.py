"""How this container behaves: its role, what becomes of COMMAND, hooks and time limits of single steps."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frappe_bootstrap.reader import Reader

STEPS = ("config", "site", "migrate", "apps", "assets", "ready")
_LONG_STEPS = ("site", "migrate", "apps", "assets")
HOOKS = {f"{phase.upper()}_{step.upper()}_HOOK": (phase, step) for step in STEPS for phase in ("pre", "post")}
TIMEOUTS = {f"{step.upper()}_TIMEOUT": step for step in _LONG_STEPS}
VARIABLES = frozenset(
    {
        "BOOTSTRAP_ROLE",
        "BOOTSTRAP_MODE",
        "BOOTSTRAP_STATE_DIR",
        "ON_UPGRADE",
        "STOP_POLICY",
        "STOP_GRACE",
        "HOOK_TIMEOUT",
        "BAKED_ASSETS",
        "FAILURE_PAGE_SECS",
        "HEALTH_PORT",
        "WAITING_ROOM_PORT",
        *HOOKS,
        *TIMEOUTS,
    }
)


@dataclass(frozen=True)
class Operation:
    """What the variables of this module say."""

    role: str
    mode: str
    on_upgrade: str
    stop_policy: str
    stop_grace: float
    hook_timeout: float
    hooks: Mapping[tuple[str, str], str]
    step_timeouts: Mapping[str, float]
    baked_assets: Path
    waiting_room_port: int
    health_port: int
    failure_page: float

    @property
    def leads(self) -> bool:
        """Return whether this container may do the work itself."""
        return self.role != "follow"


def load(reader: Reader, bench: Path) -> Operation:
    """Read the variables."""
    reader.text("BOOTSTRAP_STATE_DIR")
    return Operation(
        role=_word(reader, "BOOTSTRAP_ROLE", "auto", "follow", "once"),
        mode=_word(reader, "BOOTSTRAP_MODE", "exec", "supervise"),
        on_upgrade=_word(reader, "ON_UPGRADE", "unready", "stop", "ignore"),
        stop_policy=_word(reader, "STOP_POLICY", "abort", "finish"),
        stop_grace=reader.number("STOP_GRACE", 3600.0),
        hook_timeout=reader.number("HOOK_TIMEOUT", 600.0),
        hooks=_hooks(reader),
        step_timeouts={step: limit for name, step in TIMEOUTS.items() if (limit := reader.number(name, 0.0)) > 0},
        baked_assets=Path(reader.text("BAKED_ASSETS", str(bench / "assets"))),
        waiting_room_port=reader.port("WAITING_ROOM_PORT"),
        health_port=reader.port("HEALTH_PORT"),
        failure_page=reader.number("FAILURE_PAGE_SECS", 0.0, zero=True),
    )


def _word(reader: Reader, name: str, *words: str) -> str:
    return reader.choice(name, {word: word for word in words}, words[0])


def _hooks(reader: Reader) -> dict[tuple[str, str], str]:
    """Return the programs; one that is not there is found out before anything is done, not in mid-migration."""
    found = {}
    for name, place in HOOKS.items():
        given = reader.text(name)
        program = shutil.which(given) if given else None
        if given and program is None:
            reader.problem(name, f"{given!r} is no executable file; a hook is a program without arguments")
        elif program is not None:
            found[place] = str(Path(program).absolute())
    return found
