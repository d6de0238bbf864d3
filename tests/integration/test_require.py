"""connect(require=...) fails before anything is done, with the capability and what stands in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinate import connect
from coordinate.errors import Unsupported
from coordinate.types import Capability

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer


@pytest.mark.parametrize("capability", [Capability.CROSS_HOST, Capability.DURABLE_MARKERS, Capability.FLOOR])
def test_memory_says_what_it_cannot_do(capability: Capability) -> None:
    """Nothing can be configured there."""
    with pytest.raises(Unsupported, match=rf"memory://.*{capability.value} \(.+\)"):
        connect("memory://require", require={capability})


def test_redis_names_the_setting(shared: RedisServer) -> None:
    """A server without persistence loses records; the option that switches quarantine off is named, too."""
    with pytest.raises(Unsupported, match=r"durable-markers \(.*appendonly"):
        connect(shared.url, require={Capability.DURABLE_MARKERS})
    with pytest.raises(Unsupported, match=r"failover \(quarantine=off"):
        connect(f"{shared.url}?quarantine=off", require={Capability.FAILOVER})
    connect(shared.url, require={Capability.EXPIRY, Capability.FAILOVER, Capability.CROSS_HOST}).close()


def test_a_server_that_does_not_answer_is_no_missing_feature() -> None:
    """It is said that it was not to be asked."""
    with pytest.raises(Unsupported, match=r"durable-markers \(the server has not answered"):
        connect("redis://127.0.0.1:1/0?timeout=0.3", require={Capability.DURABLE_MARKERS})


def test_files_name_the_file_system(tmp_path: Path) -> None:
    """And that a live holder is not expired there."""
    with pytest.raises(Unsupported, match=r"cross-host \(the file system is \w+"):
        connect(f"file://{tmp_path}", require={Capability.CROSS_HOST})
    with pytest.raises(Unsupported, match=r"expiry \(a holder that lives"):
        connect(f"file://{tmp_path}", require={Capability.EXPIRY})
