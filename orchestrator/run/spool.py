"""Follows the files that an agent writes, by lines: its stdout and stderr, and its own logs."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.adapter import Tail
from orchestrator.config import expanded
from orchestrator.lines import Line, LineSplitter

QUANTUM = 64 * 1024
# Bytes read from one spool before the next one gets its turn: keeps quiet agents' p99 at 5 ms.
FIND_S, TAILS = 1.0, 64
# How often further files are looked for, and how many of them are followed at most.


class Spool:
    """Follows one growing file by lines. `grew` tells whether the last `read` found anything."""

    def __init__(self, path: Path, stream: str) -> None:
        self.stream = stream
        self.size = 0
        # The agent could put anything there: a pipe would block us, /dev/zero never end.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self._splitter = LineSplitter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def read(self) -> bytes:
        """The next bytes, at most a quantum."""
        chunk = os.pread(self._fd, QUANTUM, self.size)
        self.size += len(chunk)
        return chunk

    def lines(self, chunk: bytes) -> list[Line]:
        """The lines that `chunk` completes."""
        return self._splitter.feed(chunk)

    def rest(self) -> list[Line]:
        """The last line, if it did not end."""
        return self._splitter.close()

    def changed(self) -> bool:
        """Whether the file is longer or shorter than what was read of it."""
        return os.fstat(self._fd).st_size != self.size

    def shrunk(self) -> bool:
        """Whether the agent has cut its own output; if so, reading starts again at 0."""
        if os.fstat(self._fd).st_size >= self.size:
            return False
        self.size, self._splitter = 0, LineSplitter()
        return True


class Tails:
    """Follows the further files that a command names, as they appear. `env` is the agent's own.

    Looking for them takes time where there are many, so it is done once in `FIND_S`. One that
    cannot be read is left alone.
    """

    def __init__(self, tails: Sequence[Tail], env: Mapping[str, str], stack: ExitStack) -> None:
        self._tails = [(tail, folder) for tail in tails if (folder := expanded(tail.folder, env))]
        self._stack = stack
        self._open: dict[Path, tuple[set[bytes], Spool]] = {}
        self._unreadable: set[Path] = set()
        # What stands there already belongs to earlier runs.
        self._old = {path: size for _, path, size in self._matches()}
        self._next = 0.0

    def read(self, *, last: bool = False) -> tuple[list[Line], bool]:
        """New lines that contain what their tails ask for, and whether a file grew at all."""
        if last or time.monotonic() >= self._next:
            self._find()
            self._next = time.monotonic() + FIND_S
        found: list[Line] = []
        grew = False
        for containing, spool in self._open.values():
            chunk = spool.read()
            grew = grew or bool(chunk)
            found += [
                line
                for line in spool.lines(chunk)
                if not line.oversize and any(wanted in line.data for wanted in containing)
            ]
        return found, grew

    def changed(self) -> bool:
        """Whether a file that is followed has changed since it was read."""
        return any(spool.changed() for _, spool in self._open.values())

    def _find(self) -> None:
        for tail, path, size in self._matches():
            old = self._old.get(path, 0)
            if path in self._open:
                self._open[path][0].add(tail.containing)
            elif size > old and path not in self._unreadable and len(self._open) < TAILS:
                try:
                    spool = self._stack.enter_context(Spool(path, tail.name))
                except OSError:
                    self._unreadable.add(path)
                    continue
                spool.size = old
                self._open[path] = ({tail.containing}, spool)

    def _matches(self) -> Iterator[tuple[Tail, Path, int]]:
        for tail, folder in self._tails:
            for path in folder.glob(tail.pattern):
                with suppress(OSError):  # it is gone again
                    yield tail, path, path.lstat().st_size
