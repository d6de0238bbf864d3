"""The contract that every store is held to, as test classes that a plugin's own tests subclass.

::

    import pytest
    from coordinate.testing import LeasePortContract, MarkerPortContract, StoreFixtures

    class TestMyStore(LeasePortContract, MarkerPortContract):
        @pytest.fixture
        def open_backend(self, my_server):
            with opener(MyBackend, my_server.url) as open_backend:
                yield open_backend

Needs the extra ``testing`` (pytest). What a store *declares* is checked both ways: a capability that is declared
must hold, one that is not declared must not be relied on, and no test skips: it asserts the other behaviour.
"""

import pytest

for _module in ("kit", "lease_port", "marker_port", "watch_port", "steps_contract", "coordinator_contract"):
    # Without this, assertions in a shipped suite fail with a bare AssertionError and no values.
    pytest.register_assert_rewrite(f"coordinate.testing.{_module}")

from coordinate.testing.coordinator_contract import CoordinatorContract  # noqa: E402 -- after the registration
from coordinate.testing.kit import FakeClock, OpenBackend, eventually, opener  # noqa: E402
from coordinate.testing.lease_port import LeasePortContract  # noqa: E402
from coordinate.testing.marker_port import MarkerPortContract  # noqa: E402
from coordinate.testing.watch_port import WatchPortContract  # noqa: E402

__all__ = [
    "CoordinatorContract",
    "FakeClock",
    "LeasePortContract",
    "MarkerPortContract",
    "OpenBackend",
    "WatchPortContract",
    "eventually",
    "opener",
]
