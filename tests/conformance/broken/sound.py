"""The control."""

from __future__ import annotations

from coordinate.backends.memory import MemoryBackend


class Sound(MemoryBackend):
    """Nothing is broken: the control."""

    def forget(self, name: str) -> None:
        """Drop a lease as if it had never been."""
        self._store.leases.pop(name, None)
