"""What a rule's key may be (path, constant, look-up, several), and how JSON becomes a field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeAlias, get_args

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    model_validator,
)
from typing_extensions import TypeAliasType

from adapters.jsonl.paths import Path, PathField, Scope, is_list, path_of
from orchestrator.adapter import TEXT_LIMIT
from orchestrator.events import ErrorKind, PlanStatus, StopReason, ToolCallStatus, ToolKind


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, defer_build=True, arbitrary_types_allowed=True
    )


@dataclass(frozen=True)
class Constant:
    value: str | int | float | bool

    def read(self, scope: Scope) -> object | None:
        """The same for every line."""
        return self.value


@dataclass(frozen=True)
class At:
    path: Path

    def read(self, scope: Scope) -> object | None:
        """What stands at the path."""
        return self.path.find(scope)


def _leaf(value: object) -> Constant | At:
    match value:
        case str() if value[:1] in {".", "$"}:
            return At(path_of(value))
        case str() | int() | float():
            return Constant(value)
        case _:
            raise ValueError("a path such as `.part.text`, a text, a number, true or false")


Leaf = Annotated[
    Constant | At, PlainValidator(_leaf, json_schema_input_type=str | int | float | bool)
]


def _scalar(value: object) -> str | int | float | bool:
    if isinstance(value, str | int | float):
        return value
    raise ValueError("a text, a number, true or false")


Scalar = Annotated[
    str | int | float | bool,
    PlainValidator(_scalar, json_schema_input_type=str | int | float | bool),
]


def _regex(value: object) -> re.Pattern[str]:
    if not isinstance(value, str):
        raise ValueError("a regular expression as text")  # noqa: TRY004 (pydantic's to report)
    try:
        return re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None


Regex = Annotated[re.Pattern[str], PlainValidator(_regex, json_schema_input_type=str)]


class Lookup(Strict):
    """A value by path with something done to it."""

    path: PathField = Field(description="Where the value stands.")
    find: Regex | None = Field(
        None,
        description="A regular expression: its first group, or all of it, of the text there.",
    )
    map: dict[str, str] | None = Field(
        None, description="Words of the CLI to words of the event; numbers and booleans as text."
    )
    other: str | None = Field(None, description="What a value that is not in `map` becomes.")
    unknown: list[Scalar] = Field(
        [], description="Values that mean that nothing is known (a cost of 0, say)."
    )
    plus: list[PathField] = Field([], description="Numbers to add, where they are there.")
    minus: list[PathField] = Field([], description="Numbers to subtract; the result is at least 0.")

    @model_validator(mode="after")
    def _sense(self) -> Lookup:
        if self.other is not None and self.map is None:
            raise ValueError("`other` needs `map`")
        if self.map is not None and (self.plus or self.minus):
            raise ValueError("`map` makes a word, `plus` and `minus` a number: not both")
        return self

    def read(self, scope: Scope) -> object | None:
        """The value, looked up or reckoned; None if it is not there or not known."""
        value = self.path.find(scope)
        if value is None or any(same(value, known) for known in self.unknown):
            return None
        if self.find is not None:
            found = self.find.search(text_of(value) or shown(value))
            if found is None:
                return None
            value = found[1 if self.find.groups else 0] or ""
        if self.map is not None:
            return self.map.get(shown(value), self.other)
        if self.plus or self.minus:
            return _reckoned(value, self.plus, self.minus, scope)
        return value


def _reckoned(
    value: object, plus: Sequence[Path], minus: Sequence[Path], scope: Scope
) -> float | None:
    total = number_of(value)
    if total is None:
        return None
    total += sum(number_of(path.find(scope)) or 0 for path in plus)
    total -= sum(number_of(path.find(scope)) or 0 for path in minus)
    return max(0, total)


def form(value: object) -> str:
    match value:
        case dict() | Lookup():
            return "table"
        case list():
            return "list"
        case _:
            return "leaf"


One = Annotated[Annotated[Leaf, Tag("leaf")] | Annotated[Lookup, Tag("table")], Discriminator(form)]
# By this name pydantic makes its part of the schema once, and not for each key of each rule.
Value = TypeAliasType(
    "Value",
    Annotated[
        Annotated[Leaf, Tag("leaf")]
        | Annotated[Lookup, Tag("table")]
        | Annotated[list[One], Field(min_length=1), Tag("list")],
        Discriminator(form),
    ],
)


def read(
    value: Constant | At | Lookup | list[Constant | At | Lookup] | None, scope: Scope
) -> object | None:
    """The value, or of several the first that is there."""
    if value is None:
        return None
    if isinstance(value, list):
        return next((found for one in value if (found := one.read(scope)) is not None), None)
    return value.read(scope)


def _refuse(
    allowed: tuple[str, ...], value: Constant | At | Lookup | list[Constant | At | Lookup]
) -> object:
    """Refuses a word that the event does not know, before any line is read."""
    for one in value if isinstance(value, list) else [value]:
        said: list[object] = []
        match one:
            case Constant():
                said = [one.value]
            case Lookup(map=dict(table), other=other):
                said = [*table.values(), *([] if other is None else [other])]
            case _:
                pass
        for word in said:
            if word not in allowed:
                raise ValueError(f"one of {', '.join(allowed)}; found {word!r}")
    return value


TOOL_KINDS: Mapping[str, ToolKind] = {word: word for word in get_args(ToolKind)}
TOOL_STATUSES: Mapping[str, ToolCallStatus] = {word: word for word in get_args(ToolCallStatus)}
PLAN_STATUSES: Mapping[str, PlanStatus] = {word: word for word in get_args(PlanStatus)}
STOP_REASONS: Mapping[str, StopReason] = {word: word for word in get_args(StopReason)}
ERROR_KINDS: Mapping[str, ErrorKind] = {word: word for word in get_args(ErrorKind)}
Asked: TypeAlias = Literal["requested", "granted", "denied"]
ASKED: Mapping[str, Asked] = {word: word for word in get_args(Asked)}
Ran: TypeAlias = Literal["started", "completed", "failed"]
RAN: Mapping[str, Ran] = {word: word for word in get_args(Ran)}
Role: TypeAlias = Literal["assistant", "user"]
ROLES: Mapping[str, Role] = {word: word for word in get_args(Role)}


def _one_of(words: Mapping[str, str]) -> AfterValidator:
    return AfterValidator(partial(_refuse, tuple(words)))


KindWord = Annotated[Value, _one_of(TOOL_KINDS)]
StatusWord = Annotated[Value, _one_of(TOOL_STATUSES)]
PlanWord = Annotated[Value, _one_of(PLAN_STATUSES)]
StopWord = Annotated[Value, _one_of(STOP_REASONS)]
ErrorWord = Annotated[Value, _one_of(ERROR_KINDS)]
AskedWord = Annotated[Value, _one_of(ASKED)]
RanWord = Annotated[Value, _one_of(RAN)]
RoleWord = Annotated[Value, _one_of(ROLES)]


_NUMERAL = re.compile(r"-?[0-9]{1,15}")
EXACT = 2**53
# Larger numbers are no counts; and from 2**64 on they could be read but not written again.

# --- JSON to fields --------------------------------------------------


def same(one: object, other: object) -> bool:
    # In Python True is 1; in JSON it is not.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def shown(value: object) -> str:
    """A scalar as the keys of `map` spell it; nothing else has such a key."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return ""


def text_of(value: object) -> str | None:
    """A text; a list of texts (from a path with `[]`) is put together."""
    if isinstance(value, str):
        return value
    if is_list(value):
        texts = [text for text in value if isinstance(text, str)]
        return "".join(texts) if texts else None
    return None


def name_of(value: object) -> str | None:
    """A text or whole number that names something."""
    match value:
        case str():
            return value
        case int() if not isinstance(value, bool):
            return str(value)
        case _:
            return None


def printed(value: object) -> str | None:
    """Any value as text, cut at the limit: the spool has the rest."""
    if value is None:
        return None
    text = text_of(value)
    if text is None:
        text = orjson.dumps(value).decode()
    return text[:TEXT_LIMIT]


def number_of(value: object) -> float | None:
    """A finite number, or a whole one as text; a list (from a path with `[]`) is added up."""
    match value:
        case bool():
            return None
        case int() | float() if -EXACT < value < EXACT:
            return value
        case str() if _NUMERAL.fullmatch(value):
            return int(value)
        case _ if is_list(value):
            numbers = [number for one in value if (number := number_of(one)) is not None]
            return sum(numbers) if numbers else None
        case _:
            return None


def count_of(value: object) -> int | None:
    number = number_of(value)
    return None if number is None or number < 0 else int(number)


def status_of(value: object) -> int | None:
    number = number_of(value)
    return None if number is None else int(number)


def amount_of(value: object) -> float | None:
    number = number_of(value)
    return None if number is None or number < 0 else float(number)


def flag_of(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
