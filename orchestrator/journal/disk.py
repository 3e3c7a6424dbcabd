"""Files and folders of ours on a disk, and what is said when it is full."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from orchestrator import private
from orchestrator.errors import DiskFullError, JournalError

FREE = 512 * 1024 * 1024
# Less than this, and than 1 % of the disk, must not be left: others need it, too.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def make_folder(runs: Path, run_id: str) -> Path:
    """A new folder for a run or job, 0700. Raises JournalError."""
    make_private(runs)
    return make_private(runs / run_id, fresh=True)


def make_private(folder: Path, *, fresh: bool = False) -> Path:
    """The folder, 0700, with its parents; a `fresh` one must not be there. Raises JournalError."""
    try:
        return private.folder(folder, fresh=fresh)
    except OSError as error:
        text = f"cannot make {folder}: {error.strerror}"
        hint = "Set ORCHESTRATE_STATE_DIR to a folder that you can write to."
        raise JournalError(text, hint=hint) from error


def created(path: Path) -> int:
    """The descriptor of a new file, 0600, to write to. Raises JournalError."""
    try:
        return private.created(path)
    except OSError as error:
        raise refused(f"cannot make {path}", error) from error


def written_to(path: Path) -> bool:
    """Whether a process has the file open for writing. False where the system cannot tell."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        with os.fdopen(private.opened(path), "rb") as file:
            # A lease on reading is given only where nobody writes.
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def scarce(folder: Path) -> int | None:
    """The bytes that are free where a folder is, if that is too little; None if it is not known."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    return free if free < min(FREE, size // 100) else None


def append_private(path: Path, block: bytes, size: int) -> None:
    """Add to a file of ours that is `size` bytes long: a torn end is cut off. Raises
    JournalError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            os.ftruncate(descriptor, size)
            while block:
                block = block[os.write(descriptor, block) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise refused(f"cannot write {path}", error) from error


def no_room(error: Exception) -> DiskFullError | None:
    """The error as one of a full disk, if it is one, whichever of our files it was."""
    match error:
        case DiskFullError():
            return error
        case OSError(errno=number, filename=name) if number in {errno.ENOSPC, errno.EDQUOT}:
            told = refused(f"cannot write {name or 'a file'}", error)
            return told if isinstance(told, DiskFullError) else None
        case _:
            return None


def refused(text: str, error: OSError) -> JournalError:
    """What could not be done, as an error of ours: DiskFullError where there is no room."""
    if error.errno in NO_ROOM:
        size = "Raise the limit of a file's size (`ulimit -f`)"
        more = size if error.errno == errno.EFBIG else "Free space there"
        hint = f"{more}, or set ORCHESTRATE_STATE_DIR to another folder."
        return DiskFullError(f"{text}: {error.strerror}", hint=hint)
    return JournalError(f"{text}: {error.strerror}")
