"""What our own fronts have in common (`programs/`): conversation, lines, how fields are read.

A field of another type than it should have is as good as none: a line may come from anywhere.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard, get_args

from orchestrator.adapter import TEXT_LIMIT, Exit, Monologue, unparsed
from orchestrator.events import (
    Context,
    Error,
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
from orchestrator.model_errors import error_kind

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(kw_only=True)
class FrontConversation(Monologue):
    """What the conversations with all fronts have in common. `title` is what its program is called,
    `again` how it is installed once more, `key` the variable to name when the key is refused.
    """

    title: str
    again: str
    key: str | None = None
    _failed: bool = False
    _ended: bool = False

    def close(self, exit: Exit) -> Iterable[Update]:
        """The front always has a last word: without it, it never came up, or was killed."""
        if self._ended or exit.signal in _SIGNALS:
            return
        told = exit.stderr.strip().rsplit("\n", 1)[-1]
        how = f"signal {exit.signal}" if exit.signal else f"exit status {exit.status}"
        text = f"{self.title} ended without a last word ({how})" + (f": {told}" if told else "")
        hint = self.again if "No module named" in told else None
        yield Error(kind="crashed", text=text, hint=hint)

    def _error(self, text: str, said: Mapping[str, object]) -> Error:
        self._failed = True
        kind = kind_of(said.get("kind")) or error_kind(text, count_of(said, "status"))
        hint: str | None
        if (missing := said.get("missing")) is not None:
            kind, hint = "spawn", f"{missing} is missing. {self.again}"
        elif (unset := said.get("unset")) is not None:
            hint = f"Set {unset}, or name the variable that holds the key with --api-key-env."
        else:
            hint = self._hint(kind, text)
        retryable = said.get("retryable")
        return Error(
            kind=kind,
            text=text,
            retryable=retryable if isinstance(retryable, bool) else None,
            hint=hint,
            resets_at=text_of(said, "resets_at"),
        )

    def _hint(self, kind: ErrorKind, text: str) -> str | None:
        """What to do about an error of this kind, where the front does not say what is missing."""
        del text
        if kind == "auth_failed" and self.key is not None:
            return f"Is the key in {self.key} valid for this provider and model?"
        return None


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
