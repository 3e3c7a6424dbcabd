"""What parsers of CLIs have in common: looking into JSON (values of a stated type, or nothing),
pieces of a message put together, the line of stderr that says most. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard, TypeVar

from orchestrator.adapter import TEXT_LIMIT
from orchestrator.events import Message, MessageDelta, Thought, ThoughtDelta, Update

Value = TypeVar("Value")

MOST = 1000
"""How many things of a kind are remembered by their ids: a session may have any number of them."""
ASSEMBLED_LIMIT = 4 * 1024 * 1024
"""How many characters of a message are put together."""

_LISTS = (list, tuple)
_ERROR = re.compile(r"(?i)error:")
_PAGE = 8
_ANSI = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")


def hold(known: dict[str, Value], id_: str, value: Value, *, most: int = MOST) -> None:
    """Remember it, and forget the oldest one if there are too many."""
    known[id_] = value
    if len(known) > most:
        del known[next(iter(known))]


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, _LISTS)


def fields(value: object) -> Mapping[str, object]:
    """An object's fields; none for anything else."""
    return value if is_object(value) else {}


def items(value: object) -> Sequence[object]:
    """A list's items; none for anything else."""
    return value if is_list(value) else ()


def text(value: object) -> str | None:
    """A text that is not empty, as much of it as an event carries."""
    return value[:TEXT_LIMIT] if isinstance(value, str) and value else None


def whole(value: object) -> int | None:
    return value if type(value) is int else None  # no bool


def number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def first_line(said: str) -> str:
    return said.strip().partition("\n")[0]


def complaint(stderr: str) -> str | None:
    """The line of stderr that says most: the last such as `TypeError: ...`, else the last.

    Of a whole page without one (a CLI that does not know a flag prints how it is used) the first.
    """
    lines = [line.strip() for line in _ANSI.sub("", stderr).split("\n")]
    lines = [line for line in lines if line]
    errors = [line for line in lines if _ERROR.search(line)]
    most = (errors or (lines[:1] if len(lines) > _PAGE else lines) or [""])[-1]
    return most[:500] or None


class Pieces:
    """The pieces of a message or thought, put together where the CLI never says it whole."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._length = 0
        self._id: str | None = None
        self._thought = False

    def add(self, piece: MessageDelta | ThoughtDelta) -> Iterator[Update]:
        """Hold the piece; the whole of what came before it, if this one begins another."""
        if isinstance(piece, MessageDelta) and piece.role != "assistant":
            return
        thought = isinstance(piece, ThoughtDelta)
        if (piece.id, thought) != (self._id, self._thought):
            yield from self.take()
        self._id, self._thought = piece.id, thought
        if self._length < ASSEMBLED_LIMIT:
            self._texts.append(piece.text)
            self._length += len(piece.text)

    def take(self) -> Iterator[Update]:
        """What there is so far, whole, if anything; and begin anew."""
        if self._texts:
            said = "".join(self._texts)
            kind = Thought if self._thought else Message
            yield kind(text=said, id=self._id)
        self.drop()

    def drop(self) -> None:
        """Begin anew: the CLI itself said the whole."""
        self._texts, self._length, self._id, self._thought = [], 0, None, False
