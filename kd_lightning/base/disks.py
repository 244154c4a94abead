"""Which disk is full: an error of the operating system may name a file on another one."""

import errno
import os
import tempfile
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full_disk_message(error: OSError) -> str:
    """A sentence for an error of ``FULL``, with the disk that is full and the file on it.

    Copying names the file that is read first, and a plain write names none. So of the disks that
    the error may mean, the one with the least free space is named.
    """
    named = [Path(os.fsdecode(name)) for name in (error.filename2, error.filename) if name]
    places = named or [Path.cwd(), Path(tempfile.gettempdir())]
    place = min(places, key=free_bytes)
    disk = disk_of(place)
    writing = f", writing {place}" if named else ""
    return f"the disk of {disk} is full{writing}: free some space, or write elsewhere (outputs=…)"


def disk_of(path: Path) -> Path:
    """The folder at which the disk of a file is mounted."""
    path = existing(path)
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """The free space on the disk of a file."""
    usage = os.statvfs(existing(path))
    return usage.f_bavail * usage.f_frsize


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
