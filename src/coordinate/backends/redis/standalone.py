"""One server behind one address: ``redis://``, ``rediss://`` and ``unix://``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.backends.redis import options as of_url
from coordinate.backends.redis import wires
from coordinate.backends.redis.node import Node
from coordinate.backends.redis.topology import Topology
from coordinate.errors import ConfigError
from coordinate.url import Host

if TYPE_CHECKING:
    from coordinate.backends.redis.incarnation import Census
    from coordinate.backends.redis.options import Options
    from coordinate.url import StoreUrl


class Standalone(Topology):
    """A single server."""

    def __init__(self, url: StoreUrl, options: Options, census: Census) -> None:
        super().__init__(url, options)
        self._db = self._database()
        address = self._address()
        self._place = f"{address.place}/{self._db}"
        self._node = Node(address, census.greeter(self.tags_of))

    def _database(self) -> int:
        text = self.url.options.get("db", "") if self.url.scheme == "unix" else self.url.path.strip("/")
        return of_url.database(self.url, text)

    def _address(self) -> wires.Address:
        url = self.url
        greeting = {**self.options.greeting, "db": self._db}
        if url.scheme == "unix":
            if url.hosts or url.path in {"", "/"}:
                message = f"{url}: a socket's path is absolute: unix:///run/redis.sock"
                raise ConfigError(message)
            return wires.unix(url.path, greeting)
        if len(url.hosts) > 1:
            message = f"{url}: {url.scheme}:// takes one host; redis+sentinel:// and redis+cluster:// take several"
            raise ConfigError(message)
        return wires.tcp(url.hosts[0] if url.hosts else Host("localhost", None), greeting)

    @property
    def place(self) -> str:
        """Return address and database."""
        return self._place

    def node(self, key: bytes) -> Node:  # noqa: ARG002 -- every key is here
        """Return the server."""
        return self._node

    def nodes(self) -> list[Node]:
        """Return the server."""
        return [self._node]

    def learn(self, node: Node | None, error: Exception) -> bool:  # noqa: ARG002 -- there is nowhere else to ask
        """Learn nothing."""
        return False

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._node.close()
