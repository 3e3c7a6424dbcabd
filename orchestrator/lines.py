r"""Bytes to lines: split at `\n` alone, bounded in memory, nothing dropped. No I/O and no parsing.

`str.splitlines` also cuts at U+2028 and U+0085, which occur raw inside JSON strings.
"""

from io import BytesIO
from typing import NamedTuple

LINE_LIMIT = 4 * 1024 * 1024
"""Longest line that is handed on whole, in bytes. Parsing more blocks the event loop too long."""

HEAD = 64 * 1024
"""How much of an oversize line is kept, in bytes."""


class Line(NamedTuple):
    r"""One line of a stream, without its `\n`.

    `offset` and `length` are bytes in the stream; `length` counts the line's `\n` if it had one.
    An `oversize` line carries only its first `HEAD` bytes. `ended` is False for a last line without
    `\n`.
    """

    data: bytes
    offset: int
    length: int
    oversize: bool = False
    ended: bool = True


_NEWLINE = ord("\n")
# A third of the time that `Line(...)` takes.
_new = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class LineSplitter:
    """Splits a stream, fed in chunks of any size, into lines. Holds at most `limit` bytes."""

    def __init__(self, limit: int = LINE_LIMIT, *, offset: int = 0) -> None:
        self._limit = limit
        self._head = min(HEAD, limit)
        self._parts: list[bytes] = []
        self._held = 0
        self._length = 0
        self._start = offset

    @property
    def start(self) -> int:
        """Where the next line begins, in bytes of the stream."""
        return self._start

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that `chunk` completes, in order."""
        if chunk.find(b"\n") < 0:
            self._hold(chunk)
            return []
        parts = BytesIO(chunk).readlines()  # in half of the time that `split` takes
        rest = b"" if chunk[-1] == _NEWLINE else parts.pop()
        lines: list[Line] = []
        if self._length:
            self._hold(parts.pop(0)[:-1])
            lines.append(self._take(newline=1))
        # Most lines stand in one chunk: they need not be held first.
        start, limit = self._start, self._limit
        for part in parts:
            length = len(part)
            if length <= limit:
                lines.append(_new(Line, (part[:-1], start, length, False, True)))
                start += length
            else:
                self._start = start
                self._hold(part[:-1])
                lines.append(self._take(newline=1))
                start = self._start
        self._start = start
        if rest:
            self._hold(rest)
        return lines

    def close(self) -> list[Line]:
        r"""The tail that had no `\n`, if there is one. The splitter can be fed again afterwards."""
        return [self._take(newline=0)] if self._length else []

    def _hold(self, part: bytes) -> None:
        self._length += len(part)
        if self._length > self._limit:
            # Oversize: from here on only the head is of use, whatever else arrives.
            if self._held > self._head:
                self._parts = [b"".join(self._parts)[: self._head]]
                self._held = len(self._parts[0])
            part = part[: self._head - self._held]
        if part:
            self._parts.append(part)
            self._held += len(part)

    def _take(self, *, newline: int) -> Line:
        line = Line(
            data=b"".join(self._parts),
            offset=self._start,
            length=self._length + newline,
            oversize=self._length > self._limit,
            ended=bool(newline),
        )
        self._start += line.length
        self._parts, self._held, self._length = [], 0, 0
        return line
