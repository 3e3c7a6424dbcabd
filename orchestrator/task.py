"""What is wanted (`Task`), read safely from a task file. Pure: every error names file, line,
column, key.

`parse_task` takes the file's bytes and gives a frozen `Task`; whether paths exist is the
supervisor's business. YAML is read as YAML 1.2 would be (`no` is a text), without aliases, tags or
duplicate keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeAlias, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
)

from orchestrator.errors import InputError, TaskFileError, shown

if TYPE_CHECKING:
    import yaml
    from pydantic.fields import FieldInfo

SIZE_LIMIT = 1024 * 1024
"""Largest task file, in bytes."""

Kind: TypeAlias = Literal[
    "search",
    "summary",
    "explain",
    "docs",
    "commit_message",
    "rename",
    "format",
    "test",
    "edit",
    "fix",
    "refactor",
    "debug",
    "review",
    "plan",
    "design",
]
Access: TypeAlias = Literal["read", "edit", "full"]
Privacy: TypeAlias = Literal["any", "local"]
Dialect: TypeAlias = Literal["chat", "responses", "messages", "gemini", "ollama"]
"""A wire dialect of model servers: what an agent needs and a server offers."""

READING_KINDS: frozenset[Kind] = frozenset({"search", "summary", "review", "plan"})
"""Kinds whose access defaults to `read`."""

EDITING_KINDS: frozenset[Kind] = frozenset(
    {"docs", "rename", "format", "test", "edit", "fix", "refactor"}
)
"""Kinds that cannot have succeeded without a change in the work tree."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one run, in seconds, bytes and dollars; None is no bound. The strictest of all
    wins.
    """

    wall_s: float | None = None
    stall_s: float | None = None
    check_s: float | None = None
    steps: int | None = None
    cost_usd: float | None = None
    output_bytes: int | None = None

    def meet(self, other: Limits) -> Limits:
        """The strictest of both, limit by limit."""
        return Limits(
            wall_s=_strictest(self.wall_s, other.wall_s),
            stall_s=_strictest(self.stall_s, other.stall_s),
            check_s=_strictest(self.check_s, other.check_s),
            steps=_strictest(self.steps, other.steps),
            cost_usd=_strictest(self.cost_usd, other.cost_usd),
            output_bytes=_strictest(self.output_bytes, other.output_bytes),
        )

    def else_(self, defaults: Limits) -> Limits:
        """These limits, with `defaults` where nothing was said."""
        return Limits(
            wall_s=defaults.wall_s if self.wall_s is None else self.wall_s,
            stall_s=defaults.stall_s if self.stall_s is None else self.stall_s,
            check_s=defaults.check_s if self.check_s is None else self.check_s,
            steps=defaults.steps if self.steps is None else self.steps,
            cost_usd=defaults.cost_usd if self.cost_usd is None else self.cost_usd,
            output_bytes=defaults.output_bytes if self.output_bytes is None else self.output_bytes,
        )


DEFAULT_LIMITS = Limits(
    wall_s=30 * 60, stall_s=5 * 60, check_s=10 * 60, cost_usd=5.0, output_bytes=1024**3
)


Bound = TypeVar("Bound", int, float)


def _strictest(one: Bound | None, other: Bound | None) -> Bound | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work. `workspace` is absolute; `files` are relative to it.

    `template`: a folder to copy into a fresh git repository that then is the workspace.
    `env` goes to the agent as it is; `env_from` names variables of the supervisor to pass on.
    `session_id`: the agent's own conversation to go on with, made in the agent home `home`.
    """

    prompt: str
    id: str = "task"
    name: str | None = None
    kind: Kind | None = None
    workspace: Path = field(default_factory=Path.cwd)
    template: Path | None = None
    files: tuple[str, ...] = ()
    agent: str | None = None
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    access: Access | None = None
    privacy: Privacy = "any"
    check: str | None = None
    limits: Limits = Limits()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    env_from: tuple[str, ...] = ()
    session_id: str | None = None
    home: Path | None = None
    parent_run_id: str | None = None

    @property
    def allowed(self) -> Access:
        """The access that holds: as stated, else by kind."""
        if self.access is not None:
            return self.access
        return "read" if self.kind in READING_KINDS else "edit"


# --- the file ------------------------------------------------------------------------------------

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"kib": 1024, "mib": 1024**2, "gib": 1024**3}
_MOST = 2**53
# Above this a number is a mistake, and not every reader of JSON has it exactly.


def _seconds(value: object) -> float:
    seconds = math.nan
    match value:
        case bool():
            pass
        case int() | float() if value <= _MOST:
            seconds = float(value)
        case str() if found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", value.strip()):
            seconds = float(found[1]) * _UNITS[found[2]]
        case _:
            pass
    if 0 < seconds <= _MOST:
        return seconds
    raise ValueError("a duration above 0, such as 90s, 30m or 2h")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `30m` or `30d`. Raises InputError."""
    number, unit = text[:-1], text[-1:]
    if unit == "d" and number.isascii() and number.isdigit():
        return int(number) * 86400.0
    try:
        return _seconds(text)
    except ValueError as error:
        raise InputError(f"{shown(text)}: {error}") from error


def parse_size(text: str) -> int:
    """Bytes of a size such as `20GiB`. Raises InputError."""
    try:
        return _bytes(text)
    except ValueError as error:
        raise InputError(f"{shown(text)}: {error}") from error


def _bytes(value: object) -> int:
    size = 0
    match value:
        case bool():
            pass
        case int():
            size = value
        case str() if found := re.fullmatch(
            r"([0-9]{1,16}) ?([KMG]iB)", value.strip(), re.IGNORECASE
        ):
            size = int(found[1]) * _SIZES[found[2].lower()]
        case _:
            pass
    if 0 < size <= _MOST:
        return size
    raise ValueError("a size above 0, such as 500MiB or 1GiB")


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts:
        raise ValueError("a path inside the workspace, relative to it")
    return value


def _no_secret(value: str) -> str:
    if _SECRET.search(value):
        raise ValueError("no secret: name the variable under `env_from` instead")
    return value


def _expandable(value: str) -> str:
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError("a folder; nobody's home is known by that `~`") from None
    return value


def _form(value: object) -> str | None:
    match value:
        case str():
            return "text"
        case dict():
            return "mapping"
        case _:
            return None


_SECRET = re.compile(
    r"(?i)(^|_)((api|access|private|secret)_?key|token|secret|password|passwd|credentials?)($|_)"
)
_PLAIN = r"^[^\x00]*$"
_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_HOST = r"([^\s/?#:@\[\]\\]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
_URL = rf"^(scripted:.+|(https?://)?{_HOST}(/\S*)?)$"

Text = Annotated[str, StringConstraints(min_length=1, pattern=_PLAIN)]
EnvName = Annotated[str, StringConstraints(pattern=_NAME)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
Id = Annotated[str, StringConstraints(pattern=_ID)]
HttpUrl = Annotated[str, StringConstraints(pattern=_URL)]
Folder = Annotated[Text, AfterValidator(_expandable)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class LimitsModel(_Model):
    """Bounds of the run; the strictest of all levels wins."""

    wall: Seconds | None = Field(default=None, description="The whole run, such as 30m.")
    stall: Seconds | None = Field(
        default=None, description="Without any sign of progress, such as 5m."
    )
    check: Seconds | None = Field(default=None, description="The check command, such as 10m.")
    steps: Annotated[int, Field(ge=1, le=_MOST)] | None = Field(
        default=None, description="Tool calls."
    )
    cost_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Dollars, as far as the cost is known."
    )
    output: Bytes | None = Field(default=None, description="Raw output of the agent, such as 1GiB.")

    def limits(self) -> Limits:
        """The same as a value of the core."""
        return Limits(
            wall_s=self.wall,
            stall_s=self.stall,
            check_s=self.check,
            steps=self.steps,
            cost_usd=self.cost_usd,
            output_bytes=self.output,
        )


class ScratchModel(_Model):
    """A workspace that is made for the run."""

    scratch: Folder = Field(
        description="A folder, copied into a fresh git repository that the agent works in."
    )


Workspace = Annotated[
    Annotated[Folder, Tag("text")] | Annotated[ScratchModel, Tag("mapping")],
    Discriminator(
        _form,
        custom_error_type="workspace",
        custom_error_message="a text, or a mapping {scratch: FOLDER}",
    ),
]


class TaskModel(_Model):
    """A task file: one task. Only `prompt` is required."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, defer_build=True, title="Task file"
    )

    version: Literal[1] = Field(default=1, description="Version of this format.")
    name: Id | None = Field(default=None, description="Name of the job, shown in lists.")
    prompt: Text = Field(description="What the agent shall do.")
    kind: Kind | None = Field(default=None, description="Class of the work; omitted: reasoning.")
    agent: Text | None = Field(default=None, description="Pin: the agent by name.")
    model: Text | None = Field(default=None, description="Pin: the model, as the agent names it.")
    base_url: HttpUrl | None = Field(
        default=None,
        description="Pin: where the model is served; `scripted:FILE` plays a script as a model.",
    )
    api_key_env: EnvName | None = Field(
        default=None, description="The environment variable that holds the key; never the key."
    )
    workspace: Workspace = Field(
        default=".", description="The folder to work in, relative to this file."
    )
    files: list[Annotated[Text, AfterValidator(_inside)]] = Field(
        default=[], description="Files that matter, relative to the workspace."
    )
    check: Text | None = Field(
        default=None, description="Shell command, run after the agent; exit 0 verifies the work."
    )
    access: Access | None = Field(
        default=None, description="What the agent may do; omitted: read or edit, by kind."
    )
    privacy: Privacy = Field(
        default="any", description="`local`: only agents whose model is local."
    )
    limits: LimitsModel = LimitsModel()
    env: dict[
        Annotated[EnvName, AfterValidator(_no_secret)],
        Annotated[str, StringConstraints(pattern=_PLAIN)],
    ] = Field(
        default={},
        description="Variables for the agent and the check. No secrets.",
        json_schema_extra={"additionalProperties": False},
    )
    env_from: list[EnvName] = Field(
        default=[], description="Names of variables to pass on from the environment."
    )


def parse_task(text: bytes, *, file: str, folder: Path) -> Task:
    """The task in the bytes of a task file; `folder` (absolute) is what relative paths start from.

    Raises TaskFileError with every problem found, each with `file`, line, column and key.
    """
    tree = _Tree(file)
    return _task(tree.load(text), tree, folder)


def parse_flags(flags: Mapping[str, object], *, folder: Path) -> Task:
    """The task of a command line: keys and values as in a task file. Raises TaskFileError."""
    return _task(dict(flags), _Tree(None), folder)


def _task(value: Mapping[str, object], tree: _Tree, folder: Path) -> Task:
    try:
        model = TaskModel.model_validate(value)
    except ValidationError as error:
        raise tree.refusal(error) from None
    place = model.workspace
    if isinstance(place, ScratchModel):
        workspace, template = folder, folder / Path(place.scratch).expanduser()
    else:
        workspace, template = folder / Path(place).expanduser(), None
    return Task(
        prompt=model.prompt,
        name=model.name,
        kind=model.kind,
        workspace=workspace,
        template=template,
        files=tuple(model.files),
        agent=model.agent,
        model=model.model,
        base_url=_scripted(model.base_url, folder),
        api_key_env=model.api_key_env,
        access=model.access,
        privacy=model.privacy,
        check=model.check,
        limits=model.limits.limits(),
        env=MappingProxyType(dict(model.env)),
        env_from=tuple(model.env_from),
    )


def task_schema() -> dict[str, object]:
    """JSON Schema of a task file."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **TaskModel.model_json_schema()}


def _scripted(base_url: str | None, folder: Path) -> str | None:
    """`scripted:FILE` with the file made absolute; any other URL as it is."""
    if base_url is None or not base_url.startswith("scripted:"):
        return base_url
    return f"scripted:{folder / base_url.removeprefix('scripted:')}"


# --- YAML with positions -------------------------------------------------------------------------

_Path: TypeAlias = tuple[str | int, ...]


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


class _Tree:
    """One YAML document as plain values, remembering where each key and value stands.

    Without a file it is the command line's flags, which have no position.
    """

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._marks: dict[_Path, _At] = {(): (1, 1)}
        self._keys: dict[_Path, _At] = {}

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

    def refusal(self, error: ValidationError) -> TaskFileError:
        """What pydantic has against the values, in the order of the file; the first few of many."""
        problems = sorted(error.errors(), key=self._position)
        lines = [self._problem(problem) for problem in problems[:_TOLD]]
        if len(problems) > _TOLD:
            lines.append(shown(f"{self._file}: and {len(problems) - _TOLD} more problems"))
        return TaskFileError(tuple(lines))

    def _position(self, error: Mapping[str, object]) -> _At:
        where = _keys_of(parts(error["loc"]))
        of_key = error["type"] == "extra_forbidden" or _is_key(error)
        places = self._keys if of_key else self._marks
        return places.get(where) or self._marks.get(where[:-1], (1, 1))

    def _problem(self, error: Mapping[str, object]) -> str:
        where = _keys_of(parts(error["loc"]))
        key = ".".join(str(part) for part in where)
        text = described(error, sorted(_fields(where[:-1])))
        if self._file is None:
            return shown(f"--{key.removeprefix('limits.').replace('_', '-')}: {text}")
        line, column = self._position(error)
        return shown(f"{self._file}:{line}:{column}: {key}: {text}")

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

    def _value(self, node: yaml.Node, where: _Path) -> object:
        import yaml

        at = self._marks[where] = _at(node.start_mark)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, where)
            case yaml.SequenceNode():
                return [self._value(item, (*where, index)) for index, item in enumerate(node.value)]
            case _:
                return _scalar(node.tag, self._text(node.value, at))

    def _mapping(self, node: yaml.MappingNode, where: _Path) -> dict[str, object]:
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
            field = _fields(where).get(key)
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


def _fields(where: _Path) -> Mapping[str, FieldInfo]:
    """What is known of the keys at a place of a task file; empty where any key goes."""
    match where:
        case ():
            return TaskModel.model_fields
        case ("limits",):
            return LimitsModel.model_fields
        case ("workspace",):
            return ScratchModel.model_fields
        case _:
            return {}


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
        "string_too_short": "a text that is not empty",
    }
)
_FORMS: Mapping[str, str] = MappingProxyType(
    {
        _PLAIN: "a text without NUL",
        _NAME: "the name of a variable (letters, digits and `_`), never its value",
        _ID: "letters, digits, `.`, `_`, `-`, at most 64, the first a letter or digit",
        _URL: "an address such as http://127.0.0.1:11434, without user or key; or scripted:FILE",
    }
)


def described(error: Mapping[str, object], known: Sequence[str]) -> str:
    """What one of pydantic's errors found, and what is allowed; `known` are its place's keys."""
    found = _found(error.get("input"))
    match error["type"], error.get("ctx"):
        case "extra_forbidden", _:
            import difflib

            near = difflib.get_close_matches(str(parts(error["loc"])[-1]), known, n=1)
            return f"unknown key; {f'did you mean `{near[0]}`?' if near else _list(known)}"
        case "missing", _:
            return "required, but not there"
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


def parts(location: object) -> _Path:
    """The location of one of pydantic's errors."""
    return _location().validate_python(location)


@cache
def _location() -> TypeAdapter[_Path]:
    return TypeAdapter(_Path)


def _is_key(error: Mapping[str, object]) -> bool:
    return parts(error["loc"])[-1:] == ("[key]",)


def _keys_of(location: _Path) -> _Path:
    """The location without pydantic's own words: a union's member, and `[key]` for a key."""
    match location:
        case ("workspace", _, *rest):
            return ("workspace", *rest)
        case ("env", key, _):
            return ("env", key)
        case _:
            return location


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


KINDS: tuple[Kind, ...] = get_args(Kind)
