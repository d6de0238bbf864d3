"""Which file system a folder is on, and whether its locks are one kernel's affair."""

from __future__ import annotations

import os
import uuid
from typing import NamedTuple

import msgspec

from coordinate import _identity

LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "overlay", "ramfs", "reiserfs", "tmpfs"}
    | {"ubifs", "vfat", "xfs", "zfs"}
)
"""Types that one kernel serves. All others, also unknown ones, may be shared by several hosts: NFS, SMB, FUSE, 9p,
virtiofs, Ceph, Lustre, GFS2. A type that is missing here costs a wait and a listing, never two holders."""
_NO_BOOT_ID = f"unknown {uuid.uuid4().hex}"


class Mount(NamedTuple):
    """A row of the kernel's list of mounts, as far as two members may differ in it."""

    kind: str
    device: str = ""
    source: str = ""
    options: str = ""

    @property
    def local(self) -> bool:
        """Return whether only one kernel can have this file system mounted."""
        return self.kind in LOCAL


class Member(msgspec.Struct, frozen=True):
    """One host that uses the volume, through one mount of it.

    The host is told by its boot id: containers of one kernel share its locks, whatever their host names are.
    """

    key: str
    """Equal exactly for those whose locks are the same kernel's on the same mount."""
    boot_id: str
    name: str
    kind: str
    source: str
    local: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.kind} from {self.source}, boot {self.boot_id[:8]})"


def of(fd: int) -> Mount:
    """Return what an open folder is mounted from; an unknown kind if the kernel does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:  # noqa: PTH123 -- pathlib costs more than this
            number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            row = next(cells for cells in map(str.split, file) if cells[0] == number)
        kind, source, options = row[row.index("-") + 1 :][:3]
    except (OSError, StopIteration, ValueError, IndexError):
        return Mount("unknown")
    return Mount(kind, row[2], source, options)


def here(fd: int) -> Member:
    """Return this host, as a member of the volume that a folder is on."""
    owner, mount = _identity.mint(), of(fd)
    # Without a boot id nothing tells two kernels apart: then each process is a host of its own.
    boot = owner.boot_id or _NO_BOOT_ID
    return member(boot, owner.host, mount)


def member(boot_id: str, name: str, mount: Mount) -> Member:
    """Return a member. Two mounts of one network volume on one host do not share its locks, so they are two."""
    import hashlib  # noqa: PLC0415 -- on the first lease only

    told = boot_id if mount.local else repr((boot_id, mount.device, mount.kind, mount.options))
    key = hashlib.sha256(told.encode()).hexdigest()[:24]
    return Member(key, boot_id, name or os.uname().nodename, mount.kind, mount.source, mount.local)
