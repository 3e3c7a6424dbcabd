"""How codex's JSON is looked into: values of a stated type, or nothing. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, TypeAlias

from adapters.reading import fields, whole
from orchestrator.events import Usage

Scope: TypeAlias = Literal["call", "turn"]


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
