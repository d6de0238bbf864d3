"""URLs that cannot work: refused before any connection, the part named, the password never shown."""

from __future__ import annotations

import pytest

from coordinate.errors import ConfigError
from coordinate.testing import opener
from coordinate_zookeeper.backend import ZooKeeperBackend


@pytest.mark.parametrize(
    ("query", "part"),
    [("auth=kerberos", "auth"), ("timeout=nan", "timeout"), ("tls=maybe", "tls"), ("nonsense=1", "nonsense")],
)
def test_a_bad_option_is_named(query: str, part: str) -> None:
    """Each is a ConfigError."""
    url = f"zookeeper://us:s3cret@127.0.0.1:1/x?{query}"
    with opener(ZooKeeperBackend, url) as clients, pytest.raises(ConfigError, match=part) as refused:
        clients()
    assert "s3cret" not in str(refused.value)
