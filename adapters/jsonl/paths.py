"""Where in a line a value stands: paths such as `.part.text`, and how they look into JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeGuard

from pydantic import PlainValidator

_STEP = re.compile(
    r"""\.?\[(?P<index>-?\d{1,9})\] | \.?(?P<each>\[\])
      | \."(?P<quoted>[^"]+)" | \.(?P<name>[^\s.\[\]"]+)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Path:
    """`.part.text`, `.content[0]`, `.parts[].text` in the item at hand; with `$` in the whole line.

    A step is a key, an index, or None for each of a list or mapping.
    """

    text: str
    whole: bool
    steps: tuple[str | int | None, ...]

    def find(self, scope: Scope) -> object | None:
        """The value or None; with `[]` in the path, a list of all that are there."""
        value = scope.line if self.whole else scope.item
        if None in self.steps:
            return self._all([value])
        for step in self.steps:
            if value is None or step is None:
                return None
            value = _below(value, step)
        return value

    def _all(self, values: Sequence[object]) -> Sequence[object] | None:
        for step in self.steps:
            below = _each(values) if step is None else (_below(value, step) for value in values)
            values = [value for value in below if value is not None]
        return values or None


class Scope(NamedTuple):
    """What paths look into: the whole line, and the item of `each` (without `each`: the line)."""

    line: object
    item: object


def is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list)


def _below(value: object, step: str | int) -> object | None:
    """What is one step further down: JSON's null counts as not there."""
    if isinstance(step, str):
        # `is_mapping` takes as long as all the rest.
        return value.get(step) if isinstance(value, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return value[step] if is_list(value) and -len(value) <= step < len(value) else None


def _each(values: Iterable[object]) -> Iterator[object]:
    """All that the lists and mappings hold."""
    for value in values:
        if is_mapping(value):
            yield from value.values()
        elif is_list(value):
            yield from value


def path_of(value: object) -> Path:
    match value:
        case str() if value in {".", "$", "$."}:
            return Path(value, value != ".", ())
        case str():
            steps, at = _steps(value, value.startswith("$"))
            if steps and at == len(value):
                return Path(value, value.startswith("$"), steps)
            raise ValueError(f"no path: {value!r} is not understood from {value[at:][:20]!r} on")
        case _:
            raise ValueError("a path such as `.part.text`, `.content[0].text` or `$.type`")


def _steps(text: str, start: int) -> tuple[tuple[str | int | None, ...], int]:
    """The steps from `start` on, and how far they go."""
    steps: list[str | int | None] = []
    at = int(start)
    while found := _STEP.match(text, at):
        at = found.end()
        steps.append(int(found["index"]) if found["index"] else found["quoted"] or found["name"])
    return tuple(steps), at


def _key(value: object) -> Path:
    # The keys of `when` can only be paths: the leading dot may be left out.
    return path_of(f".{value}" if isinstance(value, str) and value[:1] not in ".$[" else value)


PathField = Annotated[Path, PlainValidator(path_of, json_schema_input_type=str)]
WhenField = Annotated[Path, PlainValidator(_key, json_schema_input_type=str)]
