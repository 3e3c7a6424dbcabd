"""`{{ tasks.ID.FIELD }}` in a prompt: what it means, and the prompt with the values in it. Pure.

A substitution and nothing more: values are data, never looked at again; anything else in braces is
a mistake. A literal `{{` is written `{{ '{{' }}`, as in Jinja; `}}` stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeGuard, get_args

Field: TypeAlias = Literal["text", "diff", "branch", "status", "verified"]
FIELDS: tuple[Field, ...] = get_args(Field)

VALUE_LIMIT = 32 * 1024
"""Most bytes of one value (in UTF-8) that get into a prompt."""
TRUNCATED = f"\n[truncated by orchestrate after {VALUE_LIMIT // 1024} KiB]"

_BRACES = re.compile(r"\{\{(?P<inner>.*?)\}\}|\{\{", re.DOTALL)
_REFERENCE = re.compile(r"tasks\.(?P<task>[A-Za-z0-9_-]+)\.(?P<field>[A-Za-z0-9_-]+)")


@dataclass(frozen=True)
class Reference:
    """What a task that is over left behind."""

    task: str
    field: Field


@dataclass(frozen=True)
class Mistake:
    """Braces that refer to nothing: as written, and why."""

    written: str
    why: str


def pieces(prompt: str) -> Iterator[tuple[str, str | Reference | Mistake]]:
    """The prompt in pieces: each as it is written, and what it is (a text is a text)."""
    end = 0
    for found in _BRACES.finditer(prompt):
        if plain := prompt[end : found.start()]:
            yield plain, plain
        yield found[0], _meant(found[0], found["inner"])
        end = found.end()
    if plain := prompt[end:]:
        yield plain, plain


def _meant(written: str, inner: str | None) -> str | Reference | Mistake:
    if inner is None:
        return Mistake(written, "`{{` is not closed by `}}`; a literal one is written {{ '{{' }}")
    match inner.strip():
        case "'{{'" | '"{{"':
            return "{{"
        case name if found := _REFERENCE.fullmatch(name):
            field: str = found["field"]
            if _is_field(field):
                return Reference(found["task"], field)
            return Mistake(written, f"unknown field {field!r}; known: {', '.join(FIELDS)}")
        case _:
            known = "|".join(FIELDS)
            literal = "a literal `{{` is written {{ '{{' }}"
            return Mistake(written, f"allowed: {{{{ tasks.ID.{known} }}}}; {literal}")


def _is_field(name: str) -> TypeGuard[Field]:
    return name in FIELDS


def rendered(prompt: str, value: Callable[[Reference], str]) -> str:
    """The prompt with the values put in, each cut at `VALUE_LIMIT`. Mistakes stay as written."""
    return "".join(_put_in(written, meant, value) for written, meant in pieces(prompt))


def _put_in(
    written: str, meant: str | Reference | Mistake, value: Callable[[Reference], str]
) -> str:
    match meant:
        case str():
            return meant
        case Reference():
            return cut(value(meant))
        case _:  # a mistake
            return written


def cut(text: str) -> str:
    """The text, if it is longer than `VALUE_LIMIT` its beginning with a mark that says so."""
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= VALUE_LIMIT:
        return text
    return encoded[:VALUE_LIMIT].decode("utf-8", "ignore") + TRUNCATED
