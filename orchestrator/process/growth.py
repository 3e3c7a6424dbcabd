"""Which of many files have grown, by the kernel's own word: one read tells it of all of them.

That is Linux's inotify. Where there is none, or no more to be had, a file is not watched, and
whoever follows it has to look.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

_MODIFIED, _OVERFLOW = 0x2, -1
_NOTICE = 16  # bytes: struct inotify_event of a file, which has no name in it
_ROOM = 4096 * _NOTICE


class Growth:
    """The files that are watched, each with a number of the caller's own."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._numbers: dict[int, int] = {}

    def watch(self, descriptor: int, number: int) -> int | None:
        """Watch an open file, whatever becomes of its name. What `forget` wants; None: it cannot
        be watched.
        """
        if (system := _system()) is None:
            return None
        if self._descriptor is None:
            made = system.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if made < 0:
                return None
            self._descriptor = made
        path = b"/proc/self/fd/%d" % descriptor
        watched: int = system.inotify_add_watch(self._descriptor, path, _MODIFIED)
        if watched < 0:
            return None
        self._numbers[watched] = number
        return watched

    def forget(self, watched: int) -> None:
        """Watch a file no more."""
        system = _system()
        if self._numbers.pop(watched, None) is not None and system is not None:
            system.inotify_rm_watch(self._descriptor, watched)

    def grown(self) -> Iterable[int]:
        """The numbers of those that were written to, or cut, since the last time."""
        if self._descriptor is None:
            return ()
        try:
            notices = os.read(self._descriptor, _ROOM)
        except BlockingIOError:
            return ()
        files = set(memoryview(notices).cast("i")[:: _NOTICE // 4])
        if _OVERFLOW in files:  # more was written than the kernel could note: it may be any of them
            return tuple(self._numbers.values())
        return [self._numbers[file] for file in files if file in self._numbers]

    def close(self) -> None:
        """Watch nothing any more."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._numbers.clear()
            with suppress(OSError):
                os.close(descriptor)


@cache
def _system() -> ctypes.CDLL | None:
    """The C library, if it has what is needed."""
    import ctypes

    library = ctypes.CDLL(None)
    return library if hasattr(library, "inotify_init1") else None
