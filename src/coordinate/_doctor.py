"""What ``coordinate doctor`` shows: which settings of the stores break a promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from coordinate.backend import Backend
    from coordinate.coordinator import Coordinator
    from coordinate.types import Finding


class Examined(msgspec.Struct, frozen=True):
    """One store: what it is used for, what it says of itself, what it promises, and what is wrong with it."""

    used_for: tuple[str, ...]
    facts: dict[str, str]
    capabilities: list[str]
    findings: list[Finding]


def examine(coordinator: Coordinator) -> list[Examined]:
    """Return lease store and marker store, as one if they are one.

    Raises:
        BackendUnavailable: a store does not answer.
    """
    leases, markers = coordinator.backend, coordinator.marker_backend
    if leases is markers:
        return [_examined(leases, "leases", "markers")]
    return [_examined(leases, "leases"), _examined(markers, "markers")]


def _examined(backend: Backend, *used_for: str) -> Examined:
    backend.ping()
    # A setting that only endangers records does not matter where no records are.
    findings = [finding for finding in backend.doctor() if set(finding.concerns) & set(used_for)]
    capabilities = sorted(capability.value for capability in backend.capabilities)
    return Examined(used_for, backend.describe(), capabilities, findings)


def as_json(stores: list[Examined]) -> str:
    """Return everything as one JSON array."""
    return msgspec.json.encode(stores).decode()


def as_text(stores: list[Examined]) -> str:
    """Return the same for people."""
    return "\n".join(line for store in stores for line in _lines(store))


def _lines(store: Examined) -> list[str]:
    facts = "; ".join(f"{key} {value}" for key, value in store.facts.items())
    lines = [
        f"store     {facts}",
        f"used for  {', '.join(store.used_for)}",
        f"promises  {', '.join(store.capabilities)}",
    ]
    for finding in store.findings:
        lines += [f"PROBLEM   {finding.setting}", f"  breaks  {finding.breaks}", f"  fix     {finding.fix}"]
    return lines if store.findings else [*lines, "good      no setting breaks a promise"]
