"""The ``file://`` store: joins leases, markers and waiting behind the port, and words the errors."""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from coordinate._clock import SYSTEM
from coordinate.backend import Backend, StoreSettings, Watch
from coordinate.errors import ConfigError, CorruptRecord
from coordinate.types import AcquireAnswer, Capability, Gone, Granted, LossReason, Quarantined, Topic, Unknown
from coordinate_filelock import leases, mounts
from coordinate_filelock.hosts import Hosts
from coordinate_filelock.volume import Volume, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coordinate._clock import Clock
    from coordinate.types import Claim, Grant, LeaseRecord, MarkerRecord, MarkerView, Owner, RenewAnswer
    from coordinate.url import StoreUrl
    from coordinate_filelock.markers import MarkerFiles
    from coordinate_filelock.mounts import Member
    from coordinate_filelock.volume import Folder
    from coordinate_filelock.watch import FileWatch


_LOOKS = 3


def _default_path() -> str:
    state = os.environ.get("XDG_STATE_HOME") or ""
    if not os.path.isabs(state):  # noqa: PTH117 -- pathlib costs more than the rest of this module
        state = os.path.expanduser("~/.local/state")  # noqa: PTH111 -- as above
    return f"{state}/coordinate"


class FileBackend(Backend):
    """Leases and markers in a folder, shared by all processes of this host that use the same one.

    Promised: a lease ends with its holder, also with kill -9; tokens never repeat, also after a power
    failure; an acknowledged marker is on the disk. Not promised: expiry (a live but hung holder keeps the
    lease until its guardian unlocks it), other hosts, fairness among waiters. Who may write the folder may do
    everything.

    Operations never wait for a lock. A volume that hangs in the kernel (a dead network mount) hangs its
    callers; the core's own deadline ends a lease in that case, too.
    """

    schemes: ClassVar[tuple[str, ...]] = ("file",)
    default_url: ClassVar[str] = f"file://{quote(_default_path())}"

    def __init__(
        self, volume: Volume, namespace: str, clock: Clock = SYSTEM, here: Callable[[int], Member] = mounts.here
    ) -> None:
        self._path = volume.path
        self._hosts = Hosts(volume, clock, here)
        self._volume = volume
        self._leases = leases.LeaseFiles(volume)
        self._store_id = f"file:{volume.path}/{namespace}"
        self._queued: weakref.WeakValueDictionary[Topic, FileWatch] = weakref.WeakValueDictionary()

    @classmethod
    def open(cls, url: StoreUrl, settings: StoreSettings) -> FileBackend:
        """Return a backend on the folder; nothing is touched yet."""
        url.check_options(())
        if url.hosts or url.username or url.password is not None:
            message = f"{url}: a file URL has no host: write file:///{url.path.lstrip('/')} with three slashes"
            raise ConfigError(message)
        default = _default_path()
        path = url.path if url.path.strip("/") else default
        if "\0" in path:
            message = "a file:// URL names a path with a null byte"
            raise ConfigError(message)
        path = os.path.realpath(path)
        parents = path == os.path.realpath(default)
        return cls(Volume(path, settings.namespace, parents=parents), settings.namespace, settings.clock)

    @functools.cached_property
    def _markers(self) -> MarkerFiles:
        from coordinate_filelock.markers import MarkerFiles  # noqa: PLC0415 -- a lease alone needs none of it

        return MarkerFiles(self._volume)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what one host's kernel and disk guarantee; other hosts only where a rendezvous proved it."""
        found = {Capability.FLOOR, Capability.CROSS_PROCESS, Capability.DURABLE_MARKERS}
        if os.path.isdir("/proc/sys/fs/inotify"):  # noqa: PTH112 -- as above
            found.add(Capability.WAKE)
        if self._hosts.proven():
            found.add(Capability.CROSS_HOST)
        return frozenset(found)

    def lacks(self, capability: Capability) -> str:
        """Name the file system where that decides."""
        if capability is Capability.CROSS_HOST:
            facts = self.describe()
            return f"the file system is {facts['file system']}: {facts['hosts']}"
        return super().lacks(capability)

    @property
    def store_id(self) -> str:
        """Return the folder's real path and the namespace."""
        return self._store_id

    def acquire(
        self,
        name: str,
        owner: Owner,
        ttl: float,
        *,
        floor: int = 0,
        queue: Watch | None = None,
        unled: bool = False,  # noqa: ARG002 -- nothing is ever forgotten here
    ) -> AcquireAnswer:
        """Take the lock if it is free. A holder's end wakes the first in line; who looks first gets it.

        Raises:
            Unsupported: another host uses the volume, and nothing proves that the two exclude each other.
        """
        with told(self._path, f"acquire {name!r}"):
            wait = self._hosts.admit(ttl)
            if wait:
                return Quarantined(wait)
            answer = self._leases.acquire(name, owner, ttl, floor, self._hosts.kernel)
            topic = Topic("lease", name, owner.nonce)
            if queue is not None and not isinstance(answer, Granted):
                watch = _own(queue)
                self._queued[topic] = watch
                # It may have been released between our look and our watching.
                for _ in range(_LOOKS):
                    if isinstance(answer, Granted) or not watch.stand(topic):
                        break
                    answer = self._leases.acquire(name, owner, ttl, floor, self._hosts.kernel)
            if isinstance(answer, Granted):
                self._leave(topic)
            return answer

    def withdraw(self, name: str, owner: Owner) -> None:
        """Stop to be woken; whoever stands behind us looks for itself then."""
        self._leave(Topic("lease", name, owner.nonce))

    def _leave(self, topic: Topic) -> None:
        watch = self._queued.pop(topic, None)
        if watch is not None:
            watch.remove(topic)

    def renew(self, grants: Sequence[Grant]) -> list[RenewAnswer]:
        """Confirm that this process still has each lock, for that grant, unbroken."""
        try:
            kept = self._hosts.keeps(max((grant.ttl for grant in grants), default=0.0))
        except FileNotFoundError:
            kept = False
        except (OSError, CorruptRecord) as error:
            return [Unknown(str(error)) for _ in grants]
        return self._leases.renew(grants) if kept else [Gone(LossReason.TAKEN) for _ in grants]

    def release(self, grant: Grant) -> bool:
        """Unlock, also on duplicates of the descriptor; call it when no guarded child lives any more."""
        with told(self._path, f"release {grant.name!r}"):
            return self._leases.release(grant)

    def holder(self, name: str) -> LeaseRecord | None:
        """Return who holds the lock; ``remaining`` is the ttl, because nothing expires."""
        with told(self._path, f"read the holder of {name!r}"):
            return self._leases.holder(name)

    def leases(self, prefix: str = "") -> list[LeaseRecord]:
        """Return all holders below a prefix."""
        with told(self._path, "list the leases"):
            return self._leases.leases(prefix)

    def break_lease(self, name: str) -> int:
        """Raise the token, so that the holder's next renewal is `Gone`.

        The lock cannot be taken from a live process: until it lets go, `acquire` by others stays `Held` and
        `holder` names it. A dead holder needs no break.
        """
        with told(self._path, f"break {name!r}"):
            return self._leases.break_lease(name)

    def claim(self, scope: str, claim: Claim) -> None:
        """Register the token and seal what counts so far."""
        with told(self._path, f"claim {scope!r}"):
            self._markers.claim(scope, claim)

    def put_marker(self, scope: str, record: MarkerRecord, token: int) -> None:
        """Write a record under the claim.

        After `StaleToken` it may count all the same, if it was there before the newer claim was sealed.
        """
        with told(self._path, f"write a marker of {scope!r}"):
            self._markers.put(scope, record, token)

    def markers(self, scope: str) -> MarkerView:
        """Read claim and records; what was seen done stays done unless an operator resets it."""
        with told(self._path, f"read the markers of {scope!r}"):
            return self._markers.view(scope)

    def delete_marker(self, scope: str, step: str, revision: str) -> bool:
        """Hide a record for good; also while a leader lives."""
        with told(self._path, f"delete a marker of {scope!r}"):
            return self._markers.delete(scope, step, revision)

    def scopes(self) -> list[str]:
        """Return the scopes with a claim or a record."""
        with told(self._path, "list the scopes"):
            return self._markers.scopes()

    def watch(self) -> Watch:
        """Return a new inotify channel."""
        from coordinate_filelock.watch import FileWatch  # noqa: PLC0415 -- ctypes only for those who wait

        local = False
        with contextlib.suppress(OSError), self._volume.open(create=True) as folder:
            local = mounts.of(folder.fd).local
        return FileWatch(self._volume, self._scope_folder, local=local)

    def _scope_folder(self, scope: str) -> Folder:
        return self._markers.folder(scope, create=True)

    def notify(self, topic: Topic) -> None:
        """Make a file appear, or close one, that the watchers of the topic look at."""
        with told(self._path, f"announce {topic.name!r}"):
            if topic.kind == "lease":
                self._leases.ring(topic.name)
            else:
                with self._scope_folder(topic.name) as folder:
                    folder.touch("changed")

    def ping(self) -> None:
        """Write to the folder."""
        with told(self._path, "write to it"), self._volume.open(create=True) as folder:
            folder.drop(folder.write(b"ping", durable=False))

    def describe(self) -> dict[str, str]:
        """Return the folder, the file system that it is on, and how waiters are woken."""
        with told(self._path, "look at it"), self._volume.open(create=True) as folder:
            me, verdict = self._hosts.verdict(folder)
        return {
            "kind": "file",
            "address": self._store_id,
            "file system": me.kind,
            "hosts": verdict,
            "wake-up": "inotify" if Capability.WAKE in self.capabilities else "polling",
        }

    def descriptors(self, grant: Grant) -> tuple[int, ...]:
        """Return the lock's and the record's descriptor: ``LOCK_UN`` on a duplicate of each ends the lease.

        They are closed in a forked child that does not exec (the lease must end with its holder), also when
        `subprocess` is given a ``preexec_fn``; duplicate them before that where they are needed.
        """
        return self._leases.descriptors(grant)

    def close(self) -> None:
        """Return: nothing is open but held leases, and those end with their release or this process."""


def _own(queue: Watch) -> FileWatch:
    from coordinate_filelock.watch import FileWatch  # noqa: PLC0415 -- loaded already: there is a watch

    if not isinstance(queue, FileWatch):
        message = f"a {type(queue).__name__} cannot wait for file:// leases"
        raise ConfigError(message)
    return queue
