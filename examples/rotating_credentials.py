"""Log in to a managed Redis with a token that a sidecar renews in a file.

That is how Microsoft Entra ID, a Vault agent or a Kubernetes secret reaches a container: somebody else writes the
present token into a file, and every new connection has to read it anew. Make this module importable and name it:

    COORDINATE_URL='rediss://app@redis.example:6380/0?credential_provider=rotating_credentials:from_file'
    REDIS_TOKEN_FILE=/var/run/redis/token

A provider for AWS ElastiCache with IAM has the same shape: sign the token in ``read`` with the SDK of your choice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.url import StoreUrl


def from_file(url: StoreUrl) -> Callable[[], tuple[str | None, str]]:
    """Return what reads user and token; called once, when the store is opened."""
    token_file = Path(os.environ["REDIS_TOKEN_FILE"])

    def read() -> tuple[str | None, str]:
        """Read the token of this moment; called for each new connection."""
        return url.username, token_file.read_text(encoding="utf-8").strip()

    return read
