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
from typing import NamedTuple, Self

import orjson

from orchestrator.adapter import Tail as Followed
from orchestrator.config import expanded
from orchestrator.events import Raw
from orchestrator.journal import TAILS, append_private
from orchestrator.lines import Line, LineSplitter

QUANTUM = 64 * 1024
# Bytes read from one spool before the next one gets its turn: keeps quiet agents' p99 at 5 ms.
MANY = 512
# Lines that one quantum should hold at most: a flood of empty ones is 65,536 in 64 KiB.
FIND_S, MOST_TAILS = 1.0, 64
# How often further files are looked for, and how many of them are followed at most.


class Spool:
    """Follows one growing file by lines. `size` is how far it was read; `full`: the last time there
    was as much as is read at once. Raises OSError if it is not a plain file.
    """

    def __init__(self, path: Path, stream: str, *, offset: int = 0) -> None:
        self.stream = stream
        self.size = offset
        self.full = False
        self._path = path
        self._end: int | None = None
        self._quantum = QUANTUM // 16
        # The agent could put anything there: a pipe would block us, /dev/zero never end.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self._splitter = LineSplitter(offset=offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @property
    def descriptor(self) -> int:
        """The file, open for reading."""
        return self._fd

    @property
    def start(self) -> int:
        """Where the next line begins."""
        return self._splitter.start

    def read(self) -> bytes:
        """The next bytes, at most a quantum."""
        wanted = self._quantum
        if self._end is not None:
            wanted = min(wanted, max(0, self._end - self.size))
        chunk = os.pread(self._fd, wanted, self.size)
        self.size += len(chunk)
        self.full = len(chunk) == self._quantum
        return chunk

    def bound(self) -> None:
        """Read no further than to where it ends now: what comes later is not the agent's word."""
        self._end = self.there()

    def lines(self, chunk: bytes) -> list[Line]:
        """The lines that `chunk` completes. Many short ones make the next quantum smaller."""
        lines = self._splitter.feed(chunk)
        if len(lines) > MANY:
            self._quantum = max(MANY, self._quantum // 2)
        elif self._quantum < QUANTUM and len(lines) < MANY // 4:
            self._quantum = min(QUANTUM, self._quantum * 2)
        return lines

    def replaced(self) -> bool:
        """Whether something else stands in its place now, or nothing."""
        try:
            return not os.path.samestat(os.lstat(self._path), os.fstat(self._fd))
        except OSError:
            return True

    def there(self) -> int:
        """How large the file is, also of what was not read yet."""
        return os.lseek(self._fd, 0, os.SEEK_END)  # a third of the time that fstat takes

    def leave(self) -> Raw:
        """Go to the end, and give up the line that was begun. What was not read."""
        end = self.there() if self._end is None else self._end
        start, self.size = self._splitter.start, max(self.size, end)
        self._splitter = LineSplitter(offset=self.size)
        return Raw(self.stream, start, self.size - start)

    def grown(self) -> bool:
        """Whether there is something to read, or the file was cut."""
        return os.lseek(self._fd, 0, os.SEEK_END) != self.size

    def rest(self) -> list[Line]:
        """The last line, if it did not end."""
        return self._splitter.close()

    def shrunk(self) -> bool:
        """Whether the agent has cut its own output; if so, reading starts again at 0."""
        if self.there() >= self.size:
            return False
        self.size, self._splitter = 0, LineSplitter()
        return True


class Tail(NamedTuple):
    """A line of an agent's own log: where it stands in our copy, and in which file up to where it
    was read. `after`: where the next line of stdout began when it was read.
    """

    raw: Raw
    line: Line
    after: int
    path: str
    end: int


class Tails:
    """Follows the further files that a command names, as they appear. `env` is the agent's own.

    What reaches the conversation is copied to `copy` first: these files are not ours and may be
    gone when the run is looked at again. Looking for them takes time where there are many, so it is
    done once in `FIND_S`. One that cannot be read is left alone.
    """

    def __init__(
        self, tails: Sequence[Followed], env: Mapping[str, str], copy: Path, stack: ExitStack
    ) -> None:
        self._tails = [(tail, folder) for tail in tails if (folder := expanded(tail.folder, env))]
        self.any = bool(self._tails)
        """Whether there are such files, or may be."""
        self._copy = copy
        self._copied = 0
        self._stack = stack
        self._open: dict[Path, tuple[set[bytes], Spool]] = {}
        self._unreadable: set[Path] = set()
        # What stands there already belongs to earlier runs.
        self._old = {path: size for _, path, size in self._matches()}
        self._next = 0.0

    def read(self, after: int, *, last: bool = False) -> tuple[list[Tail], bool]:
        """New lines that contain what their tails ask for, and whether a file grew at all."""
        if last or time.monotonic() >= self._next:
            self._find()
            self._next = time.monotonic() + FIND_S
        found: list[tuple[Path, Line]] = []
        grew = False
        for path, (containing, spool) in self._open.items():
            chunk = spool.read()
            grew = grew or bool(chunk)
            found += [
                (path, line)
                for line in spool.lines(chunk)
                if not line.oversize and any(wanted in line.data for wanted in containing)
            ]
        return self._kept(found, after), grew

    def go_on(self, tails: Sequence[Tail], home: Path | None) -> None:
        """After a crash: on from where the copy ends, and with files in the agent's own home."""
        self._copied = sum(tail.raw.length for tail in tails)
        ends = {Path(tail.path): tail.end for tail in tails}
        self._old = {
            path: ends.get(path, 0 if home and path.is_relative_to(home) else size)
            for path, size in self._old.items()
        }

    def _kept(self, found: Sequence[tuple[Path, Line]], after: int) -> list[Tail]:
        """The lines, in our copy. Raises OSError."""
        if not found:
            return []
        tails: list[Tail] = []
        block = b""
        for path, line in found:
            end = line.offset + line.length
            copied = b"%d\t%d\t%b\t%b\n" % (after, end, orjson.dumps(str(path)), line.data)
            raw = Raw(TAILS, self._copied + len(block), len(copied))
            block += copied
            tails.append(Tail(raw, line, after, str(path), end))
        append_private(self._copy, block, self._copied)
        self._copied += len(block)
        return tails

    def grown(self) -> bool:
        """Whether a file that is followed has changed since it was read."""
        return any(spool.grown() for _, spool in self._open.values())

    def _find(self) -> None:
        for tail, path, size in self._matches():
            old = self._old.get(path, 0)
            if path in self._open:
                self._open[path][0].add(tail.containing)
            elif size > old and path not in self._unreadable and len(self._open) < MOST_TAILS:
                try:
                    spool = self._stack.enter_context(Spool(path, tail.name, offset=old))
                except OSError:
                    self._unreadable.add(path)
                    continue
                self._open[path] = ({tail.containing}, spool)

    def _matches(self) -> Iterator[tuple[Followed, Path, int]]:
        for tail, folder in self._tails:
            for path in folder.glob(tail.pattern):
                with suppress(OSError):  # it is gone again
                    yield tail, path, path.lstat().st_size


def read_tails(copy: Path) -> list[Tail]:
    """The lines of an agent's own logs that a run was told, in order. What is not whole is left
    out.
    """
    try:
        with Spool(copy, TAILS) as spool:
            lines: list[Line] = []
            while chunk := spool.read():
                lines += spool.lines(chunk)
    except OSError:
        return []
    return [tail for line in lines for tail in _tail(line)]


def _tail(copied: Line) -> Iterator[Tail]:
    parts = copied.data.split(b"\t", 3)
    if len(parts) == 4 and parts[0].isdigit() and parts[1].isdigit():
        path, data = orjson.loads(parts[2]), parts[3]
        end = int(parts[1])
        line = Line(data, end - len(data) - 1, len(data) + 1)
        raw = Raw(TAILS, copied.offset, copied.length)
        yield Tail(raw, line, int(parts[0]), str(path), end)
