"""The contract that every store is held to, as test classes that a plugin's own tests subclass.

::

    import pytest
    from coordinate.testing import StoreContract, opener

    class TestMyStore(StoreContract):
        @pytest.fixture
        def open_backend(self, my_server):
            with opener(MyBackend, my_server.url) as open_backend:
                yield open_backend

Needs the extra ``testing`` (pytest). What a store *declares* is checked both ways: a capability that is declared
must hold, one that is not declared must be absent where that can be shown; no test skips: it asserts the other
behaviour. A test of a contract cannot be replaced in silence: see `overrides`.

`StoreContract` is the port (leases, markers, watches, capabilities); `UnavailablePortContract` a store that does not
answer; `CoordinatorContract` leases, markers and steps as people use them. `oracle` judges what a whole fleet did;
`FakeClock` and `FaultyBackend` put time and the network into a test's hands. ``docs/how-to/write-a-plugin.md`` is the
guide.
"""

import pytest

for _module in (
    "capability_port",
    "contract",
    "coordinator_contract",
    "kit",
    "lease_port",
    "marker_port",
    "steps_contract",
    "unavailable_port",
    "watch_port",
):
    # Without this, assertions in a shipped suite fail with a bare AssertionError and no values.
    pytest.register_assert_rewrite(f"coordinate.testing.{_module}")

from coordinate.testing import oracle  # noqa: E402 -- after the registration
from coordinate.testing.capability_port import CapabilityPortContract  # noqa: E402
from coordinate.testing.contract import Contract, overrides  # noqa: E402
from coordinate.testing.coordinator_contract import CoordinatorContract  # noqa: E402
from coordinate.testing.faulty import Fault, FaultyBackend, faulty_coordinator  # noqa: E402
from coordinate.testing.kit import Clients, FakeClock, OpenBackend, eventually, opener  # noqa: E402
from coordinate.testing.lease_port import LeasePortContract  # noqa: E402
from coordinate.testing.marker_port import MarkerPortContract  # noqa: E402
from coordinate.testing.oracle import History, Tenure, violations  # noqa: E402
from coordinate.testing.unavailable_port import UnavailablePortContract  # noqa: E402
from coordinate.testing.watch_port import WatchPortContract  # noqa: E402

__all__ = [
    "CapabilityPortContract",
    "Clients",
    "Contract",
    "CoordinatorContract",
    "FakeClock",
    "Fault",
    "FaultyBackend",
    "History",
    "LeasePortContract",
    "MarkerPortContract",
    "OpenBackend",
    "StoreContract",
    "Tenure",
    "UnavailablePortContract",
    "WatchPortContract",
    "eventually",
    "faulty_coordinator",
    "opener",
    "oracle",
    "overrides",
    "violations",
]


class StoreContract(LeasePortContract, MarkerPortContract, WatchPortContract, CapabilityPortContract):
    """All of the port. Subclass with a fixture ``open_backend``."""
