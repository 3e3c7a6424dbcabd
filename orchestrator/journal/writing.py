"""Writes the events of one run or job, with room held for its last words."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.errors import DiskFullError, JournalError
from orchestrator.journal.disk import created, refused
from orchestrator.journal.names import EVENTS

if TYPE_CHECKING:
    import ctypes
    from types import TracebackType

RESERVE, _STEP, _LARGEST_STEP = 32 * 1024, 64 * 1024, 1024 * 1024
# Room on the disk that a journal holds for its last words, and in what steps it takes more: up to
# an eighth of what it has. Small steps alone took longer than to write what comes.
_PROBES, _PROBE_S = 20, 0.01
_BLOCK = 1024 * 1024


class Journal:
    """Writes the events of one run or job. Use as a context manager. Raises JournalError."""

    def __init__(self, folder: Path, *, descriptor: int | None = None, size: int = 0) -> None:
        self.folder = folder
        self._fd = created(folder / EVENTS) if descriptor is None else descriptor
        # Held while the run lasts, and freed by the kernel if we die: so others can tell.
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._good = self._allocated = size
        try:
            self._reserve(0)
        except DiskFullError:
            os.close(self._fd)
            raise

    @classmethod
    def reopen(cls, folder: Path) -> Journal | None:
        """The journal of a run that was cut off, to go on with; None: somebody writes it now.

        A line that is not whole is cut off. Raises JournalError.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(folder / EVENTS, flags, 0o600)
        except OSError as error:
            raise JournalError(f"cannot open {folder / EVENTS}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise JournalError(f"cannot open {folder / EVENTS}: it is not a regular file")
        if not _locked(descriptor):
            os.close(descriptor)
            return None
        size = _whole_lines(descriptor)
        os.ftruncate(descriptor, size)
        return cls(folder, descriptor=descriptor, size=size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what was reserved, and say that nobody writes any more."""
        with suppress(OSError):
            os.ftruncate(self._fd, self._good)
        os.close(self._fd)

    def append(self, block: bytes) -> None:
        r"""Write events, each with its `\n`, in one go. Raises JournalError, DiskFullError if there
        is no room, also none for the last words; what stood before stays whole.
        """
        if self._good + len(block) + RESERVE > self._allocated:
            self._reserve(len(block))
        self._write(block)

    def append_last(self, block: bytes) -> None:
        """The same, on a full disk: with the room that was reserved for it."""
        self._write(block)

    def _reserve(self, size: int) -> None:
        """Take more room, for `size` bytes at least."""
        needed = self._good + size + RESERVE - self._allocated
        length = max(needed, _STEP, min(self._good // 8, _LARGEST_STEP))
        failed = _allocate(self._fd, self._allocated, length)
        if failed and length > needed:
            length = needed
            failed = _allocate(self._fd, self._allocated, length)
        if failed in {errno.ENOSPC, errno.EDQUOT}:
            raise self._full(OSError(failed, os.strerror(failed)))
        if not failed:  # any other failure: it cannot be done here, and there is no reserve
            self._allocated += length

    def _write(self, block: bytes) -> None:
        written = 0
        try:
            while written < len(block):
                written += os.write(self._fd, block[written:])
        except OSError as error:
            # A torn tail would swallow the next event: cut back to the last whole block.
            os.ftruncate(self._fd, self._good)
            raise self._full(error) from error
        self._good += written

    def sync(self) -> None:
        """Make what was written durable: called at the end of a run. Raises JournalError."""
        try:
            _sync(self._fd)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> JournalError:
        return refused(f"cannot write {self.folder / EVENTS}", error)


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the one alone


def _locked(descriptor: int) -> bool:
    """Whether we hold the lock now. A look whether a run is running holds it for a moment, too."""
    for _ in range(_PROBES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PROBE_S)
        else:
            return True
    return False


def _whole_lines(descriptor: int) -> int:
    """The size of a file up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _allocate(descriptor: int, offset: int, length: int) -> int:
    """Take room on the disk beyond the end of a file, which keeps its size. The error number."""
    import ctypes  # posix_fallocate, which Python has, would make readers see zeros

    allocate = getattr(_libc(), "fallocate", None)
    if allocate is None:
        return errno.ENOSYS
    done = allocate(descriptor, 1, ctypes.c_longlong(offset), ctypes.c_longlong(length))
    return ctypes.get_errno() if done else 0


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
