"""A task file as a document: YAML to plain values that remember where they stand, and what is wrong
with them in plain words. Pure; what the keys mean is `task`'s.

YAML is read as YAML 1.2 would be (`no` is a text), without aliases, tags or duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol, TypeAlias, TypeGuard

from pydantic import StringConstraints, TypeAdapter

from orchestrator.errors import TaskFileError, shown

if TYPE_CHECKING:
    import yaml
    from pydantic.fields import FieldInfo

SIZE_LIMIT = 1024 * 1024
"""Largest task file, in bytes."""

Where: TypeAlias = tuple[str | int, ...]
"""A place in a document: the keys and indexes that lead there."""

Fields: TypeAlias = Callable[[Where], "Mapping[str, FieldInfo]"]

PLAIN = r"^[^\x00]*$"
_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
LABEL = r"^[A-Za-z0-9][A-Za-z0-9 ._:/@+=-]{0,127}$"
_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
TASK_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_HOST = r"([^\s/?#:@\[\]\\]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
_URL = rf"^(scripted:.+|(https?://)?{_HOST}(/\S*)?)$"

Text = Annotated[str, StringConstraints(min_length=1, pattern=PLAIN)]
EnvName = Annotated[str, StringConstraints(pattern=_NAME)]
Id = Annotated[str, StringConstraints(pattern=_ID)]
Label = Annotated[str, StringConstraints(pattern=LABEL)]
HttpUrl = Annotated[str, StringConstraints(pattern=_URL)]

# --- YAML with positions -------------------------------------------------------------------------


@cache
def _loader() -> type[yaml.SafeLoader]:
    """SafeLoader with the scalars of YAML 1.2: `no`, `on` and `2026-01-01` are texts."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # noqa: RUF012 (as its base declares it)

    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+", list("-+0123456789")),
        ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ):
        Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] (no stub for it)
            f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first
        )
    return Loader


class Problem(NamedTuple):
    """What is wrong with the value at a place; `within`: the part of its text that is meant."""

    where: Where
    text: str
    within: str | None = None


class Tree:
    """One YAML document as plain values, remembering where each key and value stands.

    Without a file it is the command line's flags, which have no position.
    """

    def __init__(self, file: str | None, fields: Fields, plain: Callable[[Where], Where]) -> None:
        """`fields`: what is known of the keys at a place, empty where any key goes. `plain`: the
        place that one of pydantic's locations means.
        """
        self._file = file
        self._fields = fields
        self._plain = plain
        self._marks: dict[Where, _At] = {(): (1, 1)}
        self._keys: dict[Where, _At] = {}
        self._spans: dict[Where, tuple[int, int]] = {}
        self._source = ""

    def load(self, text: bytes) -> dict[str, object]:
        import yaml

        if len(text) > SIZE_LIMIT:
            raise self._error((1, 1), f"the file has more than {SIZE_LIMIT} bytes")
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            at = _place(text[: error.start].decode("utf-8-sig"))
            raise self._error(at, f"not UTF-8: byte 0x{text[error.start]:02x}") from None
        try:
            self._refuse_more_than_plain(decoded)
            self._source = decoded
            node = yaml.compose(decoded, _loader())
        except yaml.MarkedYAMLError as error:
            at = _at(error.problem_mark or error.context_mark)
            words = ", ".join(part for part in (error.context, error.problem) if part)
            raise self._error(at, f"not YAML: {words}") from None
        except yaml.reader.ReaderError as error:
            at = _place(decoded[: error.position])
            raise self._error(at, f"character U+{error.character:04X} is not allowed") from None
        except (ValueError, OverflowError) as error:  # such as chr() of "\UFFFFFFFF"
            raise self._error((1, 1), f"not YAML: {error}") from None
        match node:
            case None | yaml.ScalarNode(tag="tag:yaml.org,2002:null"):
                raise self._error((1, 1), "the file is empty; at least `prompt: TEXT` is needed")
            case yaml.MappingNode():
                self._marks[()] = _at(node.start_mark)
                return self._mapping(node, ())
            case _:
                found = _found(self._value(node, ()))
                text_ = f"found {found}; a task file is a mapping such as `prompt: TEXT`"
                raise self._error(_at(node.start_mark), text_)

    def line(self, where: Where) -> int:
        """The line of a key that is there."""
        return self._keys.get(where, self._marks[()])[0]

    def refusal(
        self, errors: Iterable[Mapping[str, object]], problems: Iterable[Problem]
    ) -> TaskFileError:
        """What pydantic and we have against the values, in the order of the file; the first few of
        many.
        """
        found: list[tuple[_At, Mapping[str, object] | Problem]] = [
            *((self._found_at(error), error) for error in errors),
            *((self._placed(problem), problem) for problem in problems),
        ]
        found.sort(key=lambda each: each[0])
        lines = [self._line(at, what) for at, what in found[:_TOLD]]
        if len(found) > _TOLD:
            lines.append(shown(f"{self._file}: and {len(found) - _TOLD} more problems"))
        return TaskFileError(tuple(lines))

    def _found_at(self, error: Mapping[str, object]) -> _At:
        where = self._plain(parts(error["loc"]))
        of_key = error["type"] == "extra_forbidden" or _is_key(error)
        places = self._keys if of_key else self._marks
        return places.get(where) or self._marks.get(where[:-1], (1, 1))

    def _placed(self, problem: Problem) -> _At:
        start, end = self._spans.get(problem.where, (0, 0))
        if problem.within and (found := self._source.find(problem.within, start, end)) >= 0:
            return _place(self._source[:found])
        return self._marks.get(problem.where) or self._marks.get(problem.where[:-1], (1, 1))

    def _line(self, at: _At, what: Mapping[str, object] | Problem) -> str:
        if isinstance(what, Problem):
            where, text = what.where, what.text
        else:
            where = self._plain(parts(what["loc"]))
            text = described(what, sorted(self._fields(where[:-1])))
        key = ".".join(str(part) for part in where)
        if self._file is None:
            return shown(f"--{key.removeprefix('limits.').replace('_', '-')}: {text}")
        return shown(f"{self._file}:{at[0]}:{at[1]}: {key}: {text}")

    def _error(self, at: _At, text: str) -> TaskFileError:
        return TaskFileError((shown(f"{self._file}:{at[0]}:{at[1]}: {text}"),))

    def _refuse_more_than_plain(self, text: str) -> None:
        """Aliases, tags, depth and further documents, before anything is composed of them.

        A small file of aliases explodes when it is walked; a deep one takes minutes.
        """
        import yaml

        documents = depth = 0
        for event in yaml.parse(text, _loader()):
            why: str | None = None
            match event:
                case yaml.AliasEvent(anchor=name):
                    why = f"alias `*{name}`: aliases are not allowed"
                case yaml.ScalarEvent(tag=str(tag)) | yaml.CollectionStartEvent(tag=str(tag)):
                    short = tag.replace("tag:yaml.org,2002:", "!!")
                    why = f"tag `{short}`: tags are not allowed"
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        why = "a second document; a task file holds one"
                case yaml.CollectionStartEvent():
                    depth += 1
                    if depth > _DEEPEST:
                        why = f"nested deeper than {_DEEPEST} levels"
                case yaml.CollectionEndEvent():
                    depth -= 1
                case _:
                    pass
            if why is not None:
                raise self._error(_at(event.start_mark), why)

    def _value(self, node: yaml.Node, where: Where) -> object:
        import yaml

        at = self._marks[where] = _at(node.start_mark)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, where)
            case yaml.SequenceNode():
                return [self._value(item, (*where, index)) for index, item in enumerate(node.value)]
            case _:
                self._spans[where] = (node.start_mark.index, node.end_mark.index)
                return _scalar(node.tag, self._text(node.value, at))

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, object]:
        import yaml

        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            at = _at(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                raise self._error(at, "a key must be a plain text, and not empty")
            key = self._text(key_node.value, at)
            path = (*where, key)
            if path in self._keys:
                first = self._keys[path][0]
                name = ".".join(str(part) for part in path)
                raise self._error(at, f"{name}: duplicate key; it already stands in line {first}")
            self._keys[path] = at
            value = self._value(value_node, path)
            field = self._fields(where).get(key)
            if value is not None or field is None or field.is_required():
                found[key] = value
            # else an optional key after which nothing stands: as if it were not there
        return found

    def _text(self, value: str, at: _At) -> str:
        # JSON writes a character beyond U+FFFF as two escapes; PyYAML does not join them.
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._error(at, "half a character (a lone surrogate) is not allowed") from None


_DEEPEST = 50
_TOLD = 20


_At: TypeAlias = tuple[int, int]


def _scalar(tag: str, value: str) -> object:
    match tag.removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return value.lower() == "true"
        case "int" if len(value) <= 18:
            return int(value)
        case "int" | "float":
            return float(value)
        case _:
            return value


class _Mark(Protocol):
    """Where the YAML parser is, counted from 0."""

    line: int
    column: int


def _at(mark: _Mark | None) -> _At:
    """Line and column, counted from 1."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _place(before: str) -> _At:
    """Line and column of what follows this text."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


# --- what is wrong -------------------------------------------------------------------------------

_ALLOWED: Mapping[str, str] = MappingProxyType(
    {
        "dict_type": "a mapping",
        "finite_number": "a number that has an end",
        "float_type": "a number",
        "int_from_float": "a whole number",
        "int_type": "a whole number",
        "list_type": "a list",
        "model_type": "a mapping",
        "too_short": "a list that is not empty",
        "string_too_short": "a text that is not empty",
    }
)
_FORMS: Mapping[str, str] = MappingProxyType(
    {
        PLAIN: "a text without NUL",
        _NAME: "the name of a variable (letters, digits and `_`), never its value",
        TASK_ID: "letters, digits, `_`, `-`, at most 64, the first a letter or digit",
        _ID: "letters, digits, `.`, `_`, `-`, at most 64, the first a letter or digit",
        LABEL: "letters, digits and ` ._:/@+=-`, at most 128, the first a letter or digit",
        _URL: "an address such as http://127.0.0.1:11434, without user or key; or scripted:FILE",
    }
)


def _mistaken(error: Mapping[str, object], known: Sequence[str]) -> str:
    """The key that was probably meant to be the one that is missing."""
    import difflib

    given = error.get("input")
    keys = [key for key in given if key not in known] if _is_mapping(given) else []
    near = difflib.get_close_matches(str(parts(error["loc"])[-1]), keys, n=1)
    return f" (is it meant by `{near[0]}`?)" if near else ""


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def described(error: Mapping[str, object], known: Sequence[str]) -> str:
    """What one of pydantic's errors found, and what is allowed; `known` are its place's keys."""
    found = _found(error.get("input"))
    match error["type"], error.get("ctx"):
        case "extra_forbidden", _:
            import difflib

            near = difflib.get_close_matches(str(parts(error["loc"])[-1]), known, n=1)
            return f"unknown key; {f'did you mean `{near[0]}`?' if near else _list(known)}"
        case "missing", _:
            return f"required, but not there{_mistaken(error, known)}"
        case "string_pattern_mismatch", {"pattern": str(pattern)}:
            allowed = _FORMS[pattern]
            if pattern == _NAME and not _is_key(error):  # by mistake it may be the secret itself
                found = "another text (not shown here, it may be secret)"
        case "string_type", _:
            number = isinstance(error.get("input"), bool | int | float)
            allowed = "a text (put it in quotes)" if number else "a text"
        case "value_error", {"error": ValueError() as why}:
            allowed = str(why)
        case "literal_error", {"expected": str(expected)}:
            allowed = expected.replace("'", "").replace(" or ", ", ")
        case "greater_than", {"gt": int() | float() as bound}:
            allowed = f"a number above {bound:g}"
        case _:
            plain = str(error["msg"]).removeprefix("Input should be ")
            allowed = _ALLOWED.get(str(error["type"]), plain)
    return f"found {found}; allowed: {allowed}"


def _list(known: Sequence[str]) -> str:
    return f"known: {', '.join(known)}" if known else "none is known here"


def parts(location: object) -> Where:
    """The location of one of pydantic's errors."""
    return _location().validate_python(location)


@cache
def _location() -> TypeAdapter[Where]:
    return TypeAdapter(Where)


def _is_key(error: Mapping[str, object]) -> bool:
    return parts(error["loc"])[-1:] == ("[key]",)


def _found(value: object) -> str:
    """What was found, short, and never a whole file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {_short(value)}"
        case str():
            return f"'{_short(value)}'"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return _short(value)  # a date, in TOML


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
