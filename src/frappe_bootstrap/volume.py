"""``sites/assets`` on the volume: the original image has a folder there, images with baked assets a link.

The link has the same text in all images, so each container follows it to its own files, and a change of the image
changes nothing on the volume. Folder to link is done once, the folder is kept beside it; ``frappe-bootstrap
release-volume`` puts it back. A link is replaced by rename; between taking a folder away and placing the link there is
an instant without assets, and a crash in it leaves what the next call of either function completes.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from frappe_bootstrap import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEPT = ".assets-of-the-volume"


def is_linked(sites: Path, target: Path) -> bool:
    """Return whether ``sites/assets`` is the link to a folder of the image."""
    place = sites / "assets"
    return place.is_symlink() and place.readlink() == target


def is_folder(sites: Path) -> bool:
    """Return whether ``sites/assets`` is a folder of the volume."""
    place = sites / "assets"
    return place.is_dir() and not place.is_symlink()


def link(sites: Path, target: Path, check: Callable[[], None]) -> None:
    """Make ``sites/assets`` the link; ``check`` raises if that is not our business any more.

    Raises:
        OSError: what is there can be neither kept nor replaced: no folder, or a mount of its own.
    """
    place, kept = sites / "assets", sites / KEPT
    if not place.is_symlink() and os.path.lexists(place):
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is neither a folder nor a link", str(place))
        if kept.is_dir() and not kept.is_symlink():
            # The original image has been back since, and has a newer folder.
            shutil.rmtree(kept)
        check()
        place.rename(kept)
    fresh = sites / f".assets.{os.getpid()}.{os.urandom(6).hex()}.new"
    fresh.symlink_to(target)
    try:
        check()
        fresh.replace(place)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    files.sync_folder(sites)


def release(sites: Path, check: Callable[[], None]) -> str:
    """Make ``sites/assets`` a folder again, the kept one if there is one; return what was done."""
    place, kept = sites / "assets", sites / KEPT
    check()
    if place.is_symlink():
        place.unlink()
    if os.path.lexists(place):
        return f"{place} is a folder already"
    if kept.is_dir() and not kept.is_symlink():
        kept.rename(place)
        files.sync_folder(sites)
        return f"{place} is the folder again that the volume had before"
    place.mkdir()
    # Else the original image would believe that its assets are built, and never build them.
    for mirror in sites.glob(".assets_built_*"):
        mirror.unlink(missing_ok=True)
    files.sync_folder(sites)
    return f"{place} is an empty folder: the original image builds its assets at its next start"
