"""Files and folders of our own: 0600 in 0700, and never through a link that somebody put there.

Everything here raises OSError. Only the last part of a path is looked at: `folder` makes sure of
what is above it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def folder(path: Path, *, fresh: bool = False) -> Path:
    """The folder, 0700, with its parents; a `fresh` one must not be there.

    It must be a folder and no link, and ours; root may use anybody's (a volume of a container).
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=not fresh)
    return checked(path)


def checked(path: Path) -> Path:
    """A folder that is there, made 0700 if it was open to others."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "it is a link", str(path))
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    me = os.geteuid()
    if me not in {status.st_uid, 0}:
        raise OSError(errno.EPERM, "it belongs to another user", str(path))
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def opened(path: Path) -> int:
    """A descriptor to read a file from: no link, no pipe that would block, no device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read(path: Path) -> bytes:
    """What a file holds."""
    with os.fdopen(opened(path), "rb") as file:
        return file.read()


def created(path: Path) -> int:
    """A descriptor to append to a file that was not there, 0600."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all: beside it, then renamed. A link is replaced."""
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = created(fresh)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.chmod(mode)
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)  # half a file only takes room
        raise
