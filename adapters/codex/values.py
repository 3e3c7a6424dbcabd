"""How codex's JSON is looked into: values of a stated type, or nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias, TypeGuard, TypeVar

from orchestrator.adapter import TEXT_LIMIT
from orchestrator.events import Usage

Value = TypeVar("Value")
Scope: TypeAlias = Literal["call", "turn"]

MOST = 1000
"""How many things of a kind are remembered by their ids: a session may have any number of them."""


def hold(known: dict[str, Value], id_: str, value: Value) -> None:
    """Remember it, and forget the oldest one if there are too many."""
    known[id_] = value
    if len(known) > MOST:
        del known[next(iter(known))]


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


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


def instant(seconds: object) -> str | None:
    """Seconds since 1970 in RFC 3339; None for anything else."""
    match seconds:
        case int() if 0 <= seconds < 2**32:
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case _:
            return None


def usage(value: object, *, scope: Scope = "call") -> Usage | None:
    """Tokens as codex counts them: its `input_tokens` holds the cached ones too."""
    counts = fields(value)
    prompt, output = whole(counts.get("input_tokens")), whole(counts.get("output_tokens"))
    if prompt is None or output is None:
        return None
    read = whole(counts.get("cached_input_tokens"))
    write = whole(counts.get("cache_write_input_tokens"))
    return Usage(
        input_tokens=max(0, prompt - (read or 0) - (write or 0)),
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=whole(counts.get("reasoning_output_tokens")),
        scope=scope,
    )


def first_line(said: str) -> str:
    return said.partition("\n")[0]
