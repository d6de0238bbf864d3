"""What ``coordinate status`` and ``coordinate marker list`` show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from coordinate.coordinator import Coordinator


def dump(value: object) -> str:
    """Return JSON for programs."""
    return msgspec.json.encode(value).decode()


def markers(coordinator: Coordinator, scope: str | None = None) -> list[dict[str, object]]:
    """Return the records of one scope, or of all."""
    backend = coordinator.marker_backend
    scopes = [scope] if scope else backend.scopes()
    return [
        {"scope": name, **msgspec.to_builtins(record)} for name in scopes for record in backend.markers(name).records
    ]


def as_json(coordinator: Coordinator) -> str:
    """Return stores, leases, claims and markers as one JSON object."""
    backend = coordinator.marker_backend
    claims = {scope: msgspec.to_builtins(backend.markers(scope).claim) for scope in backend.scopes()}
    return dump(
        {
            "store": coordinator.backend.describe(),
            "marker_store": backend.describe(),
            "leases": coordinator.backend.leases(),
            "claims": claims,
            "markers": markers(coordinator),
        }
    )


def as_text(coordinator: Coordinator) -> str:
    """Return the same for people."""
    store = coordinator.backend.describe()
    lines = [f"store    {store.get('kind', '')} {store.get('address', '')}"]
    lines += [
        f"lease    {lease.name}  held by {lease.owner}  token {lease.token}  {lease.remaining:.0f} s left"
        for lease in coordinator.backend.leases()
    ]
    lines += [marker_line(row) for row in markers(coordinator)]
    return "\n".join(lines)


def marker_line(row: dict[str, object]) -> str:
    """Return one record as a line."""
    counts = f"attempts {row['attempts']}  failures {row['failures']}  crashes {row['crashes']}"
    return f"marker   {row['scope']}  {row['step']}  {row['revision']}  {row['state']}  token {row['token']}  {counts}"
