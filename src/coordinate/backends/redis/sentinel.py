"""A primary, its replicas, and Sentinels that say which one it is: ``redis+sentinel://h1,h2,h3/service/db``."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, cast

from redis import exceptions as driver

from coordinate._clock import SYSTEM
from coordinate.backends.redis import options as of_url
from coordinate.backends.redis import wires
from coordinate.backends.redis.failures import DRIVER_ERRORS, NoCredentials, NoPrimary, lacks_replicas, was_refused
from coordinate.backends.redis.node import Node
from coordinate.backends.redis.topology import Topology
from coordinate.errors import ConfigError
from coordinate.types import Finding
from coordinate.url import Host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coordinate.backends.redis.incarnation import Census
    from coordinate.backends.redis.node import Line
    from coordinate.backends.redis.options import Options
    from coordinate.url import StoreUrl

log = logging.getLogger("coordinate")

OPTIONS = ("sentinel_username", "sentinel_password", "master_name")
"""Those that only these URLs have. ``master_name`` is how Celery's users call the service."""
DEFAULT_PORT = 26379
_ENOUGH = 3
"""Sentinels of which one may be lost."""
_LEAST_PATIENCE = 0.1
"""Seconds for one Sentinel: enough for a TLS handshake with a busy one in the same network."""


class Sentinel(Topology):
    """One primary at a time, found by asking.

    Sentinels are asked when the primary is not known, and it is forgotten with the first sign that it is none any
    more: it calls itself a replica, breaks a connection, or does not answer. A majority of the Sentinels in the URL
    decides, as far as they can be reached: a single one that was cut off may name a deposed primary for long. No
    name counts before its server has said itself that it is a primary.

    Nothing listens to Sentinels in between, so an idle process learns of a failover with its next request, or, where
    it waits, when its waiting channel breaks.
    """

    patience = 30.0

    def __init__(self, url: StoreUrl, options: Options, census: Census) -> None:
        super().__init__(url, options)
        self._service, self._db = _named(url)
        self._greeter = census.greeter(self.tags_of)
        hosts = [Host(host.name, host.port or DEFAULT_PORT) for host in url.hosts]
        greeting = self._sentinel_greeting(len(hosts))
        self._sentinels = [wires.tcp(host, greeting) for host in hosts]
        """Those that answered last come first."""
        self._majority = len(hosts) // 2 + 1
        self._node: Node | None = None
        self._last: Node | None = None
        self._finding = threading.Lock()
        self._failure: tuple[float, NoPrimary] | None = None
        self._pid = os.getpid()
        places = ",".join(sorted({sentinel.place for sentinel in self._sentinels}))
        self._place = f"{self._service}@{places}/{self._db}"

    def _sentinel_greeting(self, count: int) -> Mapping[str, object]:
        given = self.url.options
        username, password = given.get("sentinel_username"), given.get("sentinel_password")
        if username and password is None:
            message = f"{self.url}: sentinel_username needs sentinel_password beside it"
            raise ConfigError(message)
        # However many do not answer, asking them all takes half of a request's time.
        patience = max(_LEAST_PATIENCE, self.options.timeout / (2 * count))
        shared = {key: value for key, value in self.options.greeting.items() if key.startswith(("ssl_", "client_name"))}
        times = {"socket_timeout": patience, "socket_connect_timeout": patience}
        return {**shared, **times, "username": username, "password": password}

    @property
    def place(self) -> str:
        """Return service, Sentinels and database; the Sentinels' order in the URL makes no difference."""
        return self._place

    def node(self, key: bytes) -> Node:  # noqa: ARG002 -- every key is on the primary
        """Return the primary, asking for it where it is not known.

        Raises:
            NoPrimary: saying what each Sentinel said.
        """
        return self._node or self._find()

    def nodes(self) -> list[Node]:
        """Return the primary."""
        return [self.node(b"")]

    def learn(self, node: Node | None, error: Exception) -> bool:
        """Forget the primary if the error may mean that it is none; a certain refusal is followed at once."""
        refused = isinstance(error, driver.ReadOnlyError | driver.MasterDownError) or was_refused(error)
        if isinstance(error, NoPrimary) or not (refused or _suspicious(error)):
            return False
        if node is None or node is self._node:
            self._node = None
        return refused

    def close(self) -> None:
        """Close the connections that are not in use."""
        last = self._last
        if last is not None:
            last.close()

    # Finding the primary

    def _find(self) -> Node:
        """Return the primary; threads that ask at the same time share one answer, or one failure."""
        if self._pid != os.getpid():
            # A thread that does not exist in this forked child may hold the lock.
            self._pid, self._finding = os.getpid(), threading.Lock()
        asked = SYSTEM.now()
        with self._finding:
            if self._node is not None:
                return self._node
            if self._failure is not None and self._failure[0] > asked:
                raise self._failure[1]
            try:
                node = self._search(asked + self.options.timeout)
            except NoPrimary as error:
                self._failure = (SYSTEM.now(), error)
                raise
            before, self._node, self._last = self._last, node, node
        if before is not None and before is not node:
            log.info("%s: the primary is %s now, was %s", self.url, node.address.place, before.address.place)
            before.close()
            self.moved()
        return node

    def _search(self, until: float) -> Node:
        """Return the first of the named servers that says itself that it is the primary."""
        votes, told = self._poll()
        for host, named in sorted(votes.items(), key=lambda pair: len(pair[1]), reverse=True):
            who = " and ".join(named)
            if SYSTEM.now() > until:
                told.append(f"{who}: {host}, which was not asked for lack of time")
                continue
            try:
                return self._confirmed(host)
            except NoCredentials:
                raise
            except DRIVER_ERRORS as error:
                told.append(f"{who}: {host}, which refuses or fails: {_text(error)}")
        message = f"no usable primary of {self._service!r}. {'; '.join(told)}"
        raise NoPrimary(self._without_secrets(message))

    def _poll(self) -> tuple[dict[Host, list[str]], list[str]]:
        """Ask Sentinels until most of them agree; return who names which server, and what the others said."""
        votes: dict[Host, list[str]] = {}
        told: list[str] = []
        failed: list[wires.Address] = []
        for sentinel in self._sentinels:
            try:
                host = self._ask(sentinel)
            except DRIVER_ERRORS as error:
                failed.append(sentinel)
                told.append(f"{sentinel.place}: {_text(error)}")
                continue
            if host is None:
                told.append(f"{sentinel.place}: knows no such service")
                continue
            votes.setdefault(host, []).append(sentinel.place)
            if len(votes[host]) >= self._majority:
                break
        self._sentinels = [sentinel for sentinel in self._sentinels if sentinel not in failed] + failed
        return votes, told

    def _ask(self, sentinel: wires.Address) -> Host | None:
        reply = cast("list[bytes] | None", self._request(sentinel, b"GET-MASTER-ADDR-BY-NAME"))
        return None if reply is None else Host(reply[0].decode(), int(reply[1]))

    def _request(self, sentinel: wires.Address, question: bytes) -> wires.Reply:
        """Return what a Sentinel says about the service."""
        wire = sentinel.connect()
        try:
            words = (b"SENTINEL", question, self._service.encode())
            wire.send_packed_command([wires.pack(words)], check_health=False)
            return wire.read_response()
        finally:
            wire.disconnect()

    def findings(self) -> list[Finding]:
        """Return what is wrong with the Sentinels: too few, gone, or of no use when one is lost."""
        found = []
        if len(self._sentinels) < _ENOUGH:
            name = f"{len(self._sentinels)} Sentinels in the URL"
            breaks = "most of those in the URL have to agree: with fewer than three the loss of one may leave nobody"
            found.append(Finding(name, breaks, "name three or more"))
        for sentinel in self._sentinels:
            try:
                reply = cast("list[bytes]", self._request(sentinel, b"MASTER"))
            except DRIVER_ERRORS as error:
                name = self._without_secrets(f"Sentinel {sentinel.place}: {_text(error)}")
                breaks = "one fewer to agree on a failover, and to be asked for the primary"
                found.append(Finding(name, breaks, "start it, let it answer us, or take it out of the URL"))
                continue
            words = [word.decode(errors="replace") for word in reply]
            found += _about(sentinel.place, dict(zip(words[::2], words[1::2], strict=True)))
        return found

    def _confirmed(self, host: Host) -> Node:
        """Return a server that calls itself a primary.

        Raises:
            redis.RedisError, OSError: it does not, or does not answer.
        """
        address = wires.tcp(host, {**self.options.greeting, "db": self._db})
        known = self._last
        # The same object for the same address: waiting channels to it are still good.
        node = known if known is not None and known.address.place == address.place else Node(address, self._greeter)
        line = node.take()
        try:
            role = b"master" if line.known.incarnation else _role(line)
        finally:
            node.put(line)
        if role != b"master":
            message = f"it calls itself a {role.decode(errors='replace')}"
            raise driver.ReadOnlyError(message)
        return node

    def _without_secrets(self, text: str) -> str:
        for secret in (self.url.password, self.url.options.get("sentinel_password")):
            if secret:
                # A server that knows no AUTH repeats what it did not understand.
                text = text.replace(secret, "***")
        return text


def _named(url: StoreUrl) -> tuple[str, int]:
    """Return service and database.

    Raises:
        ConfigError: there is no service, no host, or no such database.
    """
    first, _, rest = url.path.strip("/").partition("/")
    alias = url.options.get("master_name", "")
    if alias and first != alias:
        first, rest = alias, url.path.strip("/")
    if not (url.hosts and first):
        lacking = "the name of the service (Sentinel's master name)" if url.hosts else "the Sentinels"
        message = f"{url}: {lacking} is missing: {url.scheme}://sentinel1:26379,sentinel2,sentinel3/service/0"
        raise ConfigError(message)
    return first, of_url.database(url, rest)


def _about(place: str, state: Mapping[str, str]) -> list[Finding]:
    """Return what one Sentinel's view of the service shows."""
    count, quorum = int(state.get("num-other-sentinels", "0")) + 1, int(state.get("quorum", "0"))
    if count < _ENOUGH:
        breaks = "a failover needs most of them: when one is lost, nobody replaces a dead primary"
        return [Finding(f"Sentinel {place}: knows {count} Sentinels", breaks, "run three, each on a host of its own")]
    if quorum >= count:
        breaks = "when one Sentinel is lost, nobody replaces a dead primary"
        fix = f"SENTINEL SET <service> quorum {count // 2 + 1}, on each of them"
        return [Finding(f"Sentinel {place}: quorum {quorum} of {count}", breaks, fix)]
    return []


def _role(line: Line) -> bytes:
    """Return what a server that hides its INFO calls itself; it may hide that, too, and then gets the benefit."""
    try:
        reply = cast("list[bytes]", line.ask(b"ROLE"))
    except driver.ResponseError:
        return b"master"
    return reply[0]


def _suspicious(error: Exception) -> bool:
    """Return whether a server that says this, or nothing, may not be the primary much longer."""
    return isinstance(error, driver.ConnectionError | driver.TimeoutError | OSError) or lacks_replicas(error)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
