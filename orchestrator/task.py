"""What is wanted (`Task`), read safely from a task file. Pure: every error names file, line,
column, key.

`parse_task` takes the file's bytes and gives a frozen `Task`; whether paths exist is the
supervisor's business. YAML is read as YAML 1.2 would be (`no` is a text), without aliases, tags or
duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from orchestrator.errors import TaskFileError

if TYPE_CHECKING:
    import yaml

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


def _seconds(value: object) -> float:
    match value:
        case bool():
            pass
        case int() | float() if value > 0:
            return float(value)
        case str() if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value.strip()):
            return float(found[1]) * _UNITS[found[2]]
        case _:
            pass
    raise ValueError("a duration above 0, such as 90s, 30m or 2h")


def _bytes(value: object) -> int:
    match value:
        case bool():
            pass
        case int() if value > 0:
            return value
        case str() if found := re.fullmatch(r"(\d+) ?(KiB|MiB|GiB)", value.strip(), re.IGNORECASE):
            return int(found[1]) * _SIZES[found[2].lower()]
        case _:
            pass
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


_SECRET = re.compile(r"(?i)(^|_)(api_?key|token|secret|password|passwd)($|_)")
_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]*$")]
EnvName = Annotated[str, StringConstraints(pattern=_NAME)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^(scripted:.+|(https?://)?[^\s/]+(/\S*)?)$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class LimitsModel(_Model):
    """Bounds of the run; the strictest of all levels wins."""

    wall: Seconds | None = Field(default=None, description="The whole run, such as 30m.")
    stall: Seconds | None = Field(
        default=None, description="Without any sign of progress, such as 5m."
    )
    check: Seconds | None = Field(default=None, description="The check command, such as 10m.")
    steps: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Tool calls.")
    cost_usd: Annotated[float, Field(gt=0, strict=False)] | None = Field(
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

    scratch: Text = Field(
        description="A folder, copied into a fresh git repository that the agent works in."
    )


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
    workspace: Text | ScratchModel = Field(
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
    env: dict[Annotated[EnvName, AfterValidator(_no_secret)], str] = Field(
        default={}, description="Variables for the agent and the check. No secrets."
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


def _task(value: object, tree: _Tree, folder: Path) -> Task:
    try:
        model = TaskModel.model_validate(value)
    except ValidationError as error:
        raise TaskFileError(tuple(tree.problem(problem) for problem in error.errors())) from None
    workspace, template = folder, None
    match model.workspace:
        case ScratchModel(scratch=scratch):
            template = folder / Path(scratch).expanduser()
        case str(path):
            workspace = folder / Path(path).expanduser()
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
        self._marks: dict[_Path, tuple[int, int]] = {(): (1, 1)}
        self._keys: dict[_Path, tuple[int, int]] = {}

    def load(self, text: bytes) -> object:
        import yaml

        if len(text) > SIZE_LIMIT:
            raise self._error((1, 1), f"the file has {len(text)} bytes; at most {SIZE_LIMIT}")
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            raise self._error((line, 1), f"not UTF-8: byte 0x{text[error.start]:02x}") from None
        try:
            self._refuse_aliases(decoded)
            node = yaml.compose(decoded, _loader())
            value = None if node is None else self._value(node, ())
        except yaml.MarkedYAMLError as error:
            raise self._yaml_error(error) from None
        except yaml.YAMLError as error:
            raise self._error((1, 1), f"not YAML: {error}".replace("\n", " ")) from None
        except RecursionError:
            raise self._error((1, 1), "nested too deeply") from None
        if value is None:
            raise self._error((1, 1), "the file is empty; at least `prompt: TEXT` is needed")
        if not isinstance(value, dict):
            found = f"found {_shown(value)}; a task file is a mapping such as `prompt: TEXT`"
            raise self._error((1, 1), found)
        return value  # pyright: ignore[reportUnknownVariableType] (narrowed from object)

    def problem(self, error: Mapping[str, object]) -> str:
        """One line for one of pydantic's errors."""
        where: _Path = tuple(part for part in parts(error["loc"]) if not self._is_tag(part))
        context = error.get("ctx")
        match error["type"], context:
            case "extra_forbidden", _:
                key = str(where[-1])
                known = self._known(where[:-1])
                import difflib

                near = difflib.get_close_matches(key, known, n=1)
                allowed = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
                return self._line(self._keys.get(where), where, f"unknown key; {allowed}")
            case "missing", _:
                mark = self._marks.get(where[:-1])
                return self._line(mark, where, "required, but not there")
            case "value_error", {"error": ValueError() as why}:
                allowed = str(why)
            case "literal_error", {"expected": str(expected)}:
                allowed = expected.replace("'", "").replace(" or ", ", ")
            case "string_type", _:
                allowed = "a text (quote it if it looks like a number)"
            case "string_pattern_mismatch", _:
                allowed = _PATTERNS.get(where[0] if where else "", "another form")
            case _:
                allowed = str(error["msg"]).removeprefix("Input should be ")
        found = _shown(error.get("input"))
        return self._line(self._marks.get(where), where, f"found {found}; allowed: {allowed}")

    def _is_tag(self, part: str | int) -> bool:
        # pydantic puts the union member's name or `[key]` into the location: not a key of the file.
        return part in {"str", "ScratchModel", "[key]"} or (isinstance(part, str) and "[" in part)

    def _known(self, where: _Path) -> list[str]:
        models: dict[_Path, type[BaseModel]] = {
            (): TaskModel,
            ("limits",): LimitsModel,
            ("workspace",): ScratchModel,
        }
        model = models.get(where)
        return sorted(model.model_fields) if model else []

    def _line(self, mark: tuple[int, int] | None, where: _Path, text: str) -> str:
        key = ".".join(str(part) for part in where)
        if self._file is None:
            return f"--{key.removeprefix('limits.').replace('_', '-')}: {text}"
        line, column = mark or self._marks.get(where[:-1]) or (1, 1)
        return f"{self._file}:{line}:{column}: {key}: {text}"

    def _error(self, mark: tuple[int, int], text: str) -> TaskFileError:
        return TaskFileError((f"{self._file}:{mark[0]}:{mark[1]}: {text}",))

    def _yaml_error(self, error: yaml.MarkedYAMLError) -> TaskFileError:
        at = _at(error.problem_mark or error.context_mark)
        parts = [part for part in (error.context, error.problem) if part]
        return self._error(at, f"not YAML: {', '.join(parts)}".replace("\n", " "))

    def _refuse_aliases(self, text: str) -> None:
        import yaml

        # Before composing: a small file of aliases explodes when it is walked.
        documents = 0
        for event in yaml.parse(text, _loader()):
            match event:
                case yaml.AliasEvent():
                    at = _at(event.start_mark)
                    raise self._error(at, f"alias `*{event.anchor}`: aliases are not allowed")
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        at = _at(event.start_mark)
                        raise self._error(at, "a second document; a task file holds one")
                case _:
                    pass

    def _value(self, node: yaml.Node, where: _Path) -> object:
        import yaml

        self._marks[where] = _at(node.start_mark)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, where)
            case yaml.SequenceNode():
                return [self._value(item, (*where, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode(tag=tag, value=value):
                return self._scalar(tag.removeprefix("tag:yaml.org,2002:"), value, where)
            case _:
                raise self._error(self._marks[where], "not a mapping, list or scalar")

    def _mapping(self, node: yaml.MappingNode, where: _Path) -> dict[str, object]:
        import yaml

        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            at = _at(key_node.start_mark)
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                raise self._error(at, "a key must be a plain text")
            path = (*where, key)
            if key in found:
                first = self._keys[path][0]
                name = ".".join(str(part) for part in path)
                raise self._error(at, f"{name}: duplicate key; it already stands in line {first}")
            self._keys[path] = at
            found[key] = self._value(value_node, path)
        return found

    def _scalar(self, tag: str, value: str, where: _Path) -> object:
        match tag:
            case "str":
                return value
            case "null":
                return None
            case "bool":
                return value.lower() == "true"
            case "int" if len(value) <= 18:
                return int(value)
            case "int" | "float":
                return float(value)
            case _:
                raise self._error(self._marks[where], f"tag `{tag}` is not allowed")


_PATTERNS: Mapping[str | int, str] = MappingProxyType(
    {
        "name": "letters, digits, `.`, `_`, `-`, at most 64",
        "env": "names of letters, digits and `_`",
        "env_from": "names of letters, digits and `_`; only the name, never NAME=VALUE",
        "api_key_env": "the name of an environment variable, never the key itself",
        "base_url": "a URL such as http://127.0.0.1:11434, or scripted:FILE",
        "prompt": "a text without NUL",
    }
)


class _Mark(Protocol):
    """Where the YAML parser is, counted from 0."""

    line: int
    column: int


def _at(mark: _Mark | None) -> tuple[int, int]:
    """Line and column, counted from 1."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def parts(location: object) -> tuple[str | int, ...]:
    """The location of one of pydantic's errors."""
    return TypeAdapter(tuple[str | int, ...]).validate_python(location)


def _shown(value: object) -> str:
    """What was found, short, and never a whole secret or file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str() if len(value) > 40:
            return f"'{value[:37]}...'"
        case str():
            return f"'{value}'"
        case list():
            return "a list"
        case _:
            return "a mapping"


KINDS: tuple[Kind, ...] = get_args(Kind)
