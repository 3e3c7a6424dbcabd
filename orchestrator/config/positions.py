"""On which line of a TOML text each key stands. Pure; the text is known to be TOML.

`tomllib` tells no positions. Here the text is only cut into statements; what each of them says is
left to `tomllib`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, TypeGuard

Key: TypeAlias = tuple[str, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotes may stand before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]",
    re.DOTALL,
)


def lines_of(text: str) -> Mapping[Key, int]:
    """The line, counted from 1, of each key and table; in a list of tables, of the first."""
    found: dict[Key, int] = {}
    head: Key = ()
    for line, statement in _statements(text):
        value = tomllib.loads(statement)
        if not value:
            continue  # a comment, or nothing
        if statement.lstrip(" \t").startswith("["):
            *_, head = _paths(value)
            keys = [head[:length] for length in range(1, len(head) + 1)]
        else:
            keys = [(*head, *path) for path in _paths(value)]
        for key in keys:
            found.setdefault(key, line)
    return found


def has_long_key(text: str, most: int) -> bool:
    """Whether some dotted key has more parts; of any text, TOML or not."""
    bare = _TOKEN.sub(lambda token: "s" if token[0][0] in "\"'" else token[0][:1], text)
    return re.search(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{most}}}", bare) is not None


def line_of(key: Sequence[str], lines: Mapping[Key, int]) -> int:
    """The line of a key, else of the table that it is missing in."""
    path = tuple(key)
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the line on which it begins."""
    line = first = 1
    start = depth = 0
    for token in _TOKEN.finditer(text):
        line += token[0].count("\n")
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case "\n" if depth == 0:
                yield first, text[start : token.end()]
                start, first = token.end(), line
            case _:
                pass
    yield first, text[start:]


def _paths(value: object, path: Key = ()) -> Iterator[Key]:
    """Every key below; a list of tables is as its first table."""
    if is_list(value) and value:
        value = value[0]
    if is_table(value):
        for name, inner in value.items():
            yield (*path, name)
            yield from _paths(inner, (*path, name))


def is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value of TOML is a table."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value of TOML is a list."""
    return isinstance(value, list)


def value_at(key: Sequence[str], value: object) -> object:
    """What stands below a key; None if nothing does."""
    for name in key:
        value = value.get(name) if is_table(value) else None
    return value
