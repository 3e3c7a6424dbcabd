"""`expect`: the JSON value in an agent's last text, held against a JSON Schema. Pure.

The value is the whole text, or a fenced block in it, the last one first. References to other
documents are never followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import orjson

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator
    from pydantic import JsonValue

Schema: TypeAlias = Mapping[str, object]
Where: TypeAlias = tuple[str | int, ...]

_FENCED = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+)[^\n`]*\n(?P<inner>.*?)^[ \t]*(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_LONGEST = 200
_UNHELD = "$: the schema does not hold what it refers to:"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an agent answered: the JSON value (None if there is none), and the problem with it."""

    value: object = None
    problem: str | None = None


def read_answer(text: str | None, schema: Schema) -> Answer:
    """The answer in a text. With a problem where it is no JSON, or not what the schema wants."""
    first: Answer | None = None
    for candidate in _candidates(text or ""):
        try:
            value: JsonValue = orjson.loads(candidate)
        except orjson.JSONDecodeError:
            continue
        answer = Answer(value=value, problem=_problem(value, schema))
        if answer.problem is None:
            return answer
        first = first or answer
    return first or Answer(problem="the answer holds no JSON" if text else "there is no answer")


def _candidates(text: str) -> Iterator[str]:
    yield text
    yield from reversed([block["inner"] for block in _FENCED.finditer(text)])


def _problem(value: JsonValue, schema: Schema) -> str | None:
    """The path and what is wrong there; None if the value fits."""
    from referencing.exceptions import Unresolvable

    try:
        error = _clearest(_validator(_plain(schema)).iter_errors(value))
    except RecursionError:
        return "$: nested too deeply to be checked"
    except Unresolvable as gone:
        return f"{_UNHELD} {gone.ref}"
    return None if error is None else _told(error)


def _clearest(errors: Iterable[ValidationError]) -> ValidationError | None:
    from jsonschema.exceptions import ValidationError, best_match  # pyright: ignore[reportUnknownVariableType] (of a key)

    found: object = best_match(errors)  # pyright: ignore[reportUnknownVariableType]
    return found if isinstance(found, ValidationError) else None


def _told(error: ValidationError) -> str:
    message = error.message
    short = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}..."
    return f"{error.json_path}: {short}"


def _plain(schema: Schema) -> dict[str, JsonValue]:
    """The schema of dicts and lists: the library knows no other mapping."""
    plain: dict[str, JsonValue] = orjson.loads(orjson.dumps(schema, default=dict))
    return plain


def _validator(schema: dict[str, JsonValue]) -> Validator:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY  # pyright: ignore[reportMissingTypeStubs]

    # A registry of its own: the library's would fetch what a `$ref` names.
    return validator_for(schema, default=Draft202012Validator)(schema, registry=REGISTRY)


def schema_problem(schema: Schema) -> tuple[Where, str] | None:
    """Where a JSON Schema is none, and why; None if it is one."""
    plain = _plain(schema)
    kind = type(_validator(plain))
    error = _clearest(kind(kind.META_SCHEMA).iter_errors(plain))
    if error is not None:
        return tuple(error.absolute_path), _told(error)
    # What a reference leads to is looked up only when it is used: a value for each tells.
    for where, reference in _references(plain, ()):
        problem = _problem(None, {**plain, "$ref": reference})
        if problem is not None and problem.startswith(_UNHELD):
            return where, problem
    return None


def _references(part: JsonValue, where: Where) -> Iterator[tuple[Where, str]]:
    match part:
        case dict():
            for key, inner in part.items():
                if key == "$ref" and isinstance(inner, str):
                    yield (*where, "$ref"), inner
                yield from _references(inner, (*where, key))
        case list():
            for at, inner in enumerate(part):
                yield from _references(inner, (*where, at))
        case _:
            pass


def asked(schema: Schema) -> str:
    """What an agent is told beside its prompt."""
    written = orjson.dumps(schema, default=dict, option=orjson.OPT_INDENT_2).decode()
    return (
        "End with an answer that is one JSON value and nothing else, "
        f"valid against this JSON Schema:\n```json\n{written}\n```"
    )
