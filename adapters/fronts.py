"""The lines that our own fronts have in common (`programs/`), and how their fields are read.

A field of another type than it should have is as good as none: a line may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeGuard, get_args

from orchestrator.adapter import TEXT_LIMIT, unparsed
from orchestrator.events import (
    Context,
    ErrorKind,
    Message,
    MessageDelta,
    Notice,
    Retry,
    Thought,
    ThoughtDelta,
    Update,
    Usage,
)


def heard(said: Mapping[str, object], line: bytes) -> Iterator[Update]:
    """What a line means that every front says; any other is kept as it is."""
    match said:
        case {"type": "access"}:
            yield Notice(text=_access(said))
        case {"type": "delta", "text": str(text)}:
            delta = ThoughtDelta if said.get("of") == "thought" else MessageDelta
            yield delta(text=text[:TEXT_LIMIT], id=text_of(said, "id"))
        case {"type": "thought", "text": str(text)}:
            yield Thought(text=text[:TEXT_LIMIT], id=text_of(said, "id"))
        case {"type": "message", "text": str(text)}:
            yield Message(text=text[:TEXT_LIMIT], id=text_of(said, "id"))
        case {"type": "usage"}:
            yield _usage(said)
            used, size = count_of(said, "context_used"), count_of(said, "context_size")
            yield Context(used=used, size=size)
        case {"type": "retry", "reason": str(reason)}:
            yield Retry(
                reason=reason,
                attempt=count_of(said, "attempt"),
                of=count_of(said, "of"),
                delay_s=number_of(said, "delay_s"),
            )
        case {"type": "notice", "text": str(text)}:
            yield Notice(text=text)
        case _:
            yield unparsed(line)


def _access(said: Mapping[str, object]) -> str:
    level = said.get("level")
    if said.get("enforced") is True:
        return f"access: {level}, enforced by Landlock"
    return f"access: {level}, not enforced: {said.get('reason')}"


def _usage(said: Mapping[str, object]) -> Usage:
    source = said.get("cost_source")
    return Usage(
        input_tokens=count_of(said, "input_tokens"),
        output_tokens=count_of(said, "output_tokens"),
        cache_read_tokens=count_of(said, "cache_read_tokens"),
        cache_write_tokens=count_of(said, "cache_write_tokens"),
        reasoning_tokens=count_of(said, "reasoning_tokens"),
        cost_usd=number_of(said, "cost_usd"),
        cost_source="local" if source == "local" else "prices" if source == "prices" else None,
    )


def kind_of(value: object) -> ErrorKind | None:
    return next((kind for kind in get_args(ErrorKind) if kind == value), None)


def text_of(said: Mapping[str, object], key: str) -> str | None:
    value = said.get(key)
    return value if isinstance(value, str) else None


def texts_of(said: Mapping[str, object], key: str) -> list[str]:
    value = said.get(key)
    return [text for text in value if isinstance(text, str)] if is_list(value) else []


def count_of(said: Mapping[str, object], key: str) -> int | None:
    value = said.get(key)
    return value if type(value) is int and value >= 0 else None


def number_of(said: Mapping[str, object], key: str) -> float | None:
    match said.get(key):
        case bool():
            return None
        case int() | float() as value if value >= 0:
            return float(value)
        case _:
            return None


def is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
