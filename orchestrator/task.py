"""What is wanted (`Task`, `TaskFile`), read safely from a task file. Pure: every error names file,
line, column, key.

`parse_task_file` takes the file's bytes and gives frozen values; whether paths exist is the
supervisor's business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    ValidationError,
)

from orchestrator.answer import schema_problem
from orchestrator.document import (
    PLAIN,
    TASK_ID,
    EnvName,
    HttpUrl,
    Id,
    Label,
    Problem,
    Text,
    Tree,
    Where,
)
from orchestrator.errors import InputError, TaskFileError, shown
from orchestrator.graph import before, cycle
from orchestrator.template import Mistake, Reference, pieces

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

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
Isolation: TypeAlias = Literal["worktree", "none"]
Deliver: TypeAlias = Literal["branch", "apply", "push", "bundle", "patch"]
Strategy: TypeAlias = Literal["auto", "local", "cloud", "cascade"]
Fallback: TypeAlias = Literal["none", "cloud"]
Handoff: TypeAlias = Literal["clean", "continue"]
Detached: TypeAlias = Literal["kill", "keep"]
Recovery: TypeAlias = Literal["none", "resume", "restart"]
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
    wins. `budget` says what counts. `depth`: how often one agent may hand work to the next;
    `children`: how many sub-tasks a run may hand on.
    """

    wall_s: float | None = None
    first_s: float | None = None
    stall_s: float | None = None
    tool_s: float | None = None
    turn_s: float | None = None
    check_s: float | None = None
    setup_s: float | None = None
    ask_s: float | None = None
    steps: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    output_bytes: int | None = None
    depth: int | None = None
    children: int | None = None

    def meet(self, other: Limits) -> Limits:
        """The strictest of both, limit by limit."""
        return Limits(
            wall_s=_strictest(self.wall_s, other.wall_s),
            first_s=_strictest(self.first_s, other.first_s),
            stall_s=_strictest(self.stall_s, other.stall_s),
            tool_s=_strictest(self.tool_s, other.tool_s),
            turn_s=_strictest(self.turn_s, other.turn_s),
            check_s=_strictest(self.check_s, other.check_s),
            setup_s=_strictest(self.setup_s, other.setup_s),
            ask_s=_strictest(self.ask_s, other.ask_s),
            steps=_strictest(self.steps, other.steps),
            tokens=_strictest(self.tokens, other.tokens),
            cost_usd=_strictest(self.cost_usd, other.cost_usd),
            output_bytes=_strictest(self.output_bytes, other.output_bytes),
            depth=_strictest(self.depth, other.depth),
            children=_strictest(self.children, other.children),
        )

    def else_(self, defaults: Limits) -> Limits:
        """These limits, with `defaults` where nothing was said."""
        return Limits(
            wall_s=defaults.wall_s if self.wall_s is None else self.wall_s,
            first_s=defaults.first_s if self.first_s is None else self.first_s,
            stall_s=defaults.stall_s if self.stall_s is None else self.stall_s,
            tool_s=defaults.tool_s if self.tool_s is None else self.tool_s,
            turn_s=defaults.turn_s if self.turn_s is None else self.turn_s,
            check_s=defaults.check_s if self.check_s is None else self.check_s,
            setup_s=defaults.setup_s if self.setup_s is None else self.setup_s,
            ask_s=defaults.ask_s if self.ask_s is None else self.ask_s,
            steps=defaults.steps if self.steps is None else self.steps,
            tokens=defaults.tokens if self.tokens is None else self.tokens,
            cost_usd=defaults.cost_usd if self.cost_usd is None else self.cost_usd,
            output_bytes=defaults.output_bytes if self.output_bytes is None else self.output_bytes,
            depth=defaults.depth if self.depth is None else self.depth,
            children=defaults.children if self.children is None else self.children,
        )


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """A program that speaks the Model Context Protocol on stdin and stdout, for the agent to start.

    `command[0]` is an absolute path or a program's name. `env` is what the program knows beyond a
    small base; what is named like a secret stands on no command line and in no record.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def key(self) -> str:
        """The name, as every CLI takes it for a key of its settings."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.name)

    @property
    def secrets(self) -> Mapping[str, str]:
        """What of `env` is named like a secret."""
        return {name: value for name, value in self.env.items() if _SECRET.search(name)}


DEFAULT_LIMITS = Limits(
    wall_s=30 * 60,
    stall_s=5 * 60,
    tool_s=15 * 60,  # more than the ten minutes after which the CLIs themselves end a tool
    check_s=10 * 60,
    setup_s=10 * 60,
    ask_s=5 * 60,
    cost_usd=5.0,
    output_bytes=1024**3,
    depth=3,
    children=10,
)


Bound = TypeVar("Bound", int, float)


def _strictest(one: Bound | None, other: Bound | None) -> Bound | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A git repository to fetch the workspace from. `ref` is a branch, a tag or a whole commit id;
    None: what the repository itself has as its HEAD. It is fetched by the user's own git, with
    their credentials.
    """

    url: str
    ref: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work. `workspace` is absolute; `files` are relative to it.

    `template`: a folder to copy into a fresh git repository that then is the workspace. `source`: a
    repository to fetch it from, which takes the place of both.
    `env` goes to the agent as it is; `env_from` names variables of the supervisor to pass on.
    `session_id`: the agent's own conversation to go on with, made in the agent home `home`.
    `needs`: the ids of the tasks in the same file that must have succeeded. `isolation` None: as
    the workspace is. `expect`: a JSON Schema that the answer must satisfy. `force`: no
    warning of an agent that is too heavy for its model. `recovery`: what another worker does when
    the one that ran it is gone; `retry_safe`: doing it twice does no harm. `requires`: labels that
    its worker must have. `mcp_servers` are given to an agent that can have any (`About.mcp`), and
    are in no record. `delegation`: its agent may hand sub-tasks on to other agents.
    """

    prompt: str
    id: str = "task"
    name: str | None = None
    needs: tuple[str, ...] = ()
    kind: Kind | None = None
    workspace: Path = field(default_factory=Path.cwd)
    template: Path | None = None
    source: Source | None = None
    files: tuple[str, ...] = ()
    agent: str | None = None
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    access: Access | None = None
    privacy: Privacy = "any"
    check: str | None = None
    expect: Mapping[str, object] | None = None
    limits: Limits = Limits()
    isolation: Isolation | None = None
    deliver: Deliver | None = None
    include_uncommitted: bool = False
    setup: str | None = None
    copy: tuple[str, ...] = ()
    strategy: Strategy | None = None
    fallback: Fallback | None = None
    handoff: Handoff = "clean"
    detached: Detached = "kill"
    force: bool = False
    retries: int = 0
    recovery: Recovery = "none"
    retry_safe: bool = False
    requires: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    env_from: tuple[str, ...] = ()
    session_id: str | None = None
    home: Path | None = None
    parent_run_id: str | None = None
    mcp_servers: tuple[McpServer, ...] = ()
    delegation: bool | None = None

    @property
    def allowed(self) -> Access:
        """The access that holds: as stated, else by kind."""
        if self.access is not None:
            return self.access
        return "read" if self.kind in READING_KINDS else "edit"


def recorded(task: Task) -> Task:
    """The task as a record holds it: what MCP servers know is theirs."""
    return replace(task, mcp_servers=()) if task.mcp_servers else task


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """Tasks that belong together, in the order of the file; what is said at the top is in each.

    `single`: one task, told at the top; its prompt is plain text. Else prompts are templates.
    `concurrency`: how many run side by side; None is not stated. `limits`: those at the top.
    """

    tasks: tuple[Task, ...]
    name: str | None = None
    concurrency: int | None = None
    limits: Limits = Limits()
    single: bool = False

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """The graph of the tasks."""
        return {task.id: task.needs for task in self.tasks}

    @property
    def leaves(self) -> frozenset[str]:
        """The tasks that no other needs."""
        needed = {need for needs in self.needs.values() for need in needs}
        return frozenset(self.needs) - needed


# --- the file ------------------------------------------------------------------------------------

TASKS = 1000
"""Most tasks in a file."""

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


_OnOff: TypeAlias = Literal["on", "off"]


def _switched(value: object) -> object:
    match value:
        case "on" | "off":
            return value == "on"
        case bool() | None:
            return value
        case _:
            raise ValueError("on or off")


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


_GIT_URL = re.compile(
    r"(https|ssh)://(?!-)[A-Za-z0-9.@\[\]_~-][^\s\x00-\x1f\\]*"
    r"|file:///[^\x00-\x1f]+|(?!-)[A-Za-z0-9._-]+@(?!-)[A-Za-z0-9.-]+:(?!//)[^\s\x00-\x1f\\]+"
)
_LOGIN = re.compile(r"https://[^/]*@|ssh://[^/]*:[^/]*@")
_GIT_REF = re.compile(r"(?!.*(\.\.|@\{|//|\.lock$))[A-Za-z0-9_][A-Za-z0-9_.\-/+@#]*")


def _git_url(value: str) -> str:
    if _LOGIN.match(value):
        raise ValueError("no name or password: the git of whoever runs it has the credentials")
    if not _GIT_URL.fullmatch(value):
        raise ValueError("an address that begins with https://, ssh://, file:/// or USER@HOST:")
    return value


def _git_ref(value: str) -> str:
    if not _GIT_REF.fullmatch(value):
        raise ValueError("the name of a branch or tag, or a whole commit id")
    return value


def _form(value: object) -> str | None:
    match value:
        case str():
            return "text"
        case dict() if "git" in value:
            return "git"
        case dict():
            return "mapping"
        case _:
            return None


_SECRET = re.compile(
    r"(?i)(^|_)((api|access|private|secret)_?key|token|secret|password|passwd|credentials?)($|_)"
)
Switch = Annotated[bool, BeforeValidator(_switched, json_schema_input_type=bool | _OnOff)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
Count = Annotated[int, Field(ge=1, le=_MOST)]
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Depth = Annotated[int, Field(ge=0, le=100)]
TaskId = Annotated[str, StringConstraints(pattern=TASK_ID)]
Folder = Annotated[Text, AfterValidator(_expandable)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class LimitsModel(_Model):
    """Bounds of the run; the strictest of all levels wins."""

    wall: Seconds | None = Field(default=None, description="The agent's whole time, such as 30m.")
    first: Seconds | None = Field(
        default=None, description="Without a sign of life before the model's first word."
    )
    stall: Seconds | None = Field(
        default=None, description="Without any sign of life after that, such as 5m."
    )
    tool: Seconds | None = Field(
        default=None, description="Without a sign of life while a tool call is open, such as 15m."
    )
    turn: Seconds | None = Field(default=None, description="One turn of the agent, such as 20m.")
    check: Seconds | None = Field(default=None, description="The check command, such as 10m.")
    setup: Seconds | None = Field(default=None, description="The setup command, such as 10m.")
    ask: Seconds | None = Field(
        default=None, description="A question to a person (permissions: ask), such as 5m."
    )
    steps: Count | None = Field(
        default=None, description="Tool calls, or model calls where an agent tells no tool calls."
    )
    tokens: Count | None = Field(
        default=None, description="Tokens read and written by the model, cached ones included."
    )
    cost_usd: Dollars | None = Field(
        default=None, description="Dollars, as far as the cost is known."
    )
    output: Bytes | None = Field(default=None, description="Raw output of the agent, such as 1GiB.")
    depth: Depth | None = Field(
        default=None, description="How often one agent may hand work to the next (delegation)."
    )
    children: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="How many sub-tasks one run may hand on (delegation)."
    )

    def limits(self) -> Limits:
        """The same as a value of the core."""
        return Limits(
            wall_s=self.wall,
            first_s=self.first,
            stall_s=self.stall,
            tool_s=self.tool,
            turn_s=self.turn,
            check_s=self.check,
            setup_s=self.setup,
            ask_s=self.ask,
            steps=self.steps,
            tokens=self.tokens,
            cost_usd=self.cost_usd,
            output_bytes=self.output,
            depth=self.depth,
            children=self.children,
        )


class ScratchModel(_Model):
    """A workspace that is made for the run."""

    scratch: Folder = Field(
        description="A folder, copied into a fresh git repository that the agent works in."
    )


class GitModel(_Model):
    """A workspace that is fetched for the run."""

    git: Annotated[Text, AfterValidator(_git_url)] = Field(
        description="The repository's address: https://, ssh://, file:/// or USER@HOST:PATH."
    )
    ref: Annotated[Text, AfterValidator(_git_ref)] | None = Field(
        default=None, description="A branch, a tag or a whole commit id; default: its HEAD."
    )


Workspace = Annotated[
    Annotated[Folder, Tag("text")]
    | Annotated[ScratchModel, Tag("mapping")]
    | Annotated[GitModel, Tag("git")],
    Discriminator(
        _form,
        custom_error_type="workspace",
        custom_error_message="a text, or a mapping {scratch: FOLDER} or {git: URL, ref: REF}",
    ),
]


class _Keys(_Model):
    """What may be said of a task, and at the top as the default of every task."""

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
    isolation: Isolation | None = Field(
        default=None, description="A work tree of its own for each task, or the workspace itself."
    )
    deliver: Deliver | None = Field(
        default=None,
        description="The result: a `branch` (omitted); `apply` to the workspace; `push` the branch "
        "to where the workspace was fetched; a `bundle` or `patch` in the outcome.",
    )
    setup: Text | None = Field(
        default=None, description="Shell command, run in a fresh work tree before the agent."
    )
    copy_: list[Annotated[Text, AfterValidator(_inside)]] = Field(
        default=[], alias="copy", description="Untracked files that a work tree takes along."
    )
    files: list[Annotated[Text, AfterValidator(_inside)]] = Field(
        default=[], description="Files that matter, relative to the workspace."
    )
    check: Text | None = Field(
        default=None, description="Shell command, run after the agent; exit 0 verifies the work."
    )
    expect: dict[str, JsonValue] | None = Field(
        default=None, description="JSON Schema that the agent's answer must satisfy."
    )
    access: Access | None = Field(
        default=None, description="What the agent may do; omitted: read or edit, by kind."
    )
    privacy: Privacy = Field(
        default="any", description="`local`: only agents whose model is local."
    )
    strategy: Strategy | None = Field(
        default=None, description="Where models are looked for: how an agent is chosen."
    )
    fallback: Fallback | None = Field(
        default=None, description="`cloud`: a failed local run may go on in the cloud."
    )
    handoff: Handoff = Field(
        default="clean", description="What a further attempt begins with: nothing, or the work."
    )
    detached: Detached = Field(
        default="kill", description="What becomes of processes that outlive the agent."
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=0, description="Further attempts after a failure that may pass."
    )
    recovery: Recovery = Field(
        default="none",
        description="What becomes of a task whose worker was killed: `none`, it is interrupted; "
        "`resume`, the agent's session goes on in its work tree; `restart`, it begins again.",
    )
    requires: list[Label] = Field(
        default=[], description="Labels that a worker must have, such as `gpu` or `server:desk`."
    )
    retry_safe: bool = Field(
        default=False, description="Doing it twice does no harm: `recovery` may begin it again."
    )
    limits: LimitsModel = LimitsModel()
    delegation: Switch | None = Field(
        default=None, description="on: the agent may hand sub-tasks on to other agents."
    )
    env: dict[
        Annotated[EnvName, AfterValidator(_no_secret)],
        Annotated[str, StringConstraints(pattern=PLAIN)],
    ] = Field(
        default={},
        description="Variables for the agent and the check. No secrets.",
        json_schema_extra={"additionalProperties": False},
    )
    env_from: list[EnvName] = Field(
        default=[], description="Names of variables to pass on from the environment."
    )


def _no_default(schema: dict[str, JsonValue]) -> None:
    del schema["default"]


class ItemModel(_Keys):
    """One of several tasks."""

    model_config = ConfigDict(title="Task")

    id: TaskId = Field(description="Name of the task in this file.")
    needs: list[TaskId] = Field(
        default=[], description="Tasks that must have succeeded before; their ids."
    )
    prompt: Text = Field(
        description="What the agent shall do; {{ tasks.ID.text }} is a needed task's answer."
    )


class TaskModel(_Keys):
    """A task file: one task (`prompt`), or several (`tasks`)."""

    model_config = ConfigDict(
        title="Task file",
        json_schema_extra={"oneOf": [{"required": ["prompt"]}, {"required": ["tasks"]}]},
    )

    version: Literal[1] = Field(default=1, description="Version of this format.")
    name: Id | None = Field(default=None, description="Name of the job, shown in lists.")
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many tasks may run side by side."
    )
    prompt: Text = Field(
        default="", description="What the agent shall do.", json_schema_extra=_no_default
    )
    tasks: list[ItemModel] = Field(
        default=[],
        min_length=1,
        max_length=TASKS,
        description="Several tasks; what stands beside this list holds for each of them.",
        json_schema_extra=_no_default,
    )


def parse_task_file(text: bytes, *, file: str, folder: Path) -> TaskFile:
    """The tasks in the bytes of a task file; `folder` (absolute) is what relative paths start from.

    Raises TaskFileError with every problem found, each with `file`, line, column and key.
    """
    tree = Tree(file, _fields, _keys_of)
    return _task_file(tree.load(text), tree, folder)


def written_in(text: bytes, *, file: str) -> tuple[Mapping[str, object], Callable[[Where], int]]:
    """What a task file says, as it is written, and the line of each of its keys. Raises
    TaskFileError for what is no YAML.
    """
    tree = Tree(file, _fields, _keys_of)
    return tree.load(text), tree.line


def parse_task(text: bytes, *, file: str, folder: Path) -> Task:
    """The one task in the bytes of a task file. Raises TaskFileError, also if there are several."""
    found = parse_task_file(text, file=file, folder=folder)
    if not found.single:
        raise TaskFileError((shown(f"{file}:1:1: tasks: one task is needed here, not a list"),))
    return found.tasks[0]


def parse_flags(flags: Mapping[str, object], *, folder: Path) -> Task:
    """The task of a command line: keys and values as in a task file. Raises TaskFileError."""
    return _task_file(dict(flags), Tree(None, _fields, _keys_of), folder).tasks[0]


def check_tasks(file: TaskFile) -> None:
    """Raises InputError unless the values, ids, needs and templates of the tasks are right."""
    for task in file.tasks:
        _check_values(task)
    problems = [*_graph_problems(file), *_place_problems(file)]
    if problems:
        told = (f"{'.'.join(map(str, where))}: {why}" for where, why, _ in problems)
        raise InputError("\n".join(map(shown, told)))


def _check_values(task: Task) -> None:
    """Whoever makes a task in code may have its words from anywhere: `privacy` must not be lost by
    a letter.
    """
    for name, allowed in _closed().items():
        value = getattr(task, name)
        if value not in allowed:
            known = ", ".join(word for word in allowed if word is not None)
            raise InputError(f"task {task.id!r}: {name}: {value!r} is none of {known}")
    for name, type_ in {"prompt": str, "workspace": Path, "limits": Limits}.items():
        if not isinstance(getattr(task, name), type_):
            raise InputError(f"task {task.id!r}: {name}: not a {type_.__name__}")


@cache
def _closed() -> Mapping[str, tuple[str | None, ...]]:
    """The fields of a task that hold one of a few words, and which; None where it may be absent."""
    found: dict[str, tuple[str | None, ...]] = {}
    for name, type_ in get_type_hints(Task).items():
        either = (type_, *get_args(type_))
        words = [word for one in either if get_origin(one) is Literal for word in get_args(one)]
        if words:
            found[name] = (*words, *(None for one in either if one is type(None)))
    return found


def _task_file(value: Mapping[str, object], tree: Tree, folder: Path) -> TaskFile:
    extra = list(_form_problems(value))
    try:
        model = TaskModel.model_validate(value)
    except ValidationError as error:
        raise tree.refusal(error.errors(), extra) from None
    if not extra:
        file = _read(model, folder)
        extra = [*_schema_problems(model), *_graph_problems(file), *_place_problems(file)]
        if not extra:
            return file
    raise tree.refusal([], extra)


def _form_problems(value: Mapping[str, object]) -> Iterator[Problem]:
    if "prompt" in value and "tasks" in value:
        yield Problem(("prompt",), "there are `tasks`, too: a prompt belongs into one of them")
    elif "prompt" not in value and "tasks" not in value:
        yield Problem(("prompt",), "required, but not there (or a list of `tasks`)")


def _read(model: TaskModel, folder: Path) -> TaskFile:
    tasks = [
        replace(_task(model, each, folder), id=each.id, needs=tuple(each.needs), prompt=each.prompt)
        for each in model.tasks
    ]
    if not model.tasks:
        tasks = [replace(_task(model, model, folder), prompt=model.prompt)]
    return TaskFile(
        tasks=tuple(tasks),
        name=model.name,
        concurrency=model.concurrency,
        limits=model.limits.limits(),
        single=not model.tasks,
    )


def _task(top: TaskModel, own: _Keys, folder: Path) -> Task:
    """A task without its prompt: what it says itself, else what is said at the top.

    Limits and privacy meet, variables add up.
    """
    common = _Keys.model_fields.keys()
    stated = {name: getattr(top, name) for name in common & top.model_fields_set}
    stated |= {name: getattr(own, name) for name in common & own.model_fields_set}
    keys = _Keys.model_construct(**stated)
    workspace, template, source = folder, None, None
    match keys.workspace:
        case ScratchModel(scratch=scratch):
            template = folder / Path(scratch).expanduser()
        case GitModel(git=url, ref=ref):
            source = Source(url=url, ref=ref)
        case place:
            workspace = folder / Path(place).expanduser()
    return Task(
        prompt="",
        name=top.name,
        kind=keys.kind,
        workspace=workspace,
        template=template,
        source=source,
        files=tuple(keys.files),
        agent=keys.agent,
        model=keys.model,
        base_url=_scripted(keys.base_url, folder),
        api_key_env=keys.api_key_env,
        access=keys.access,
        privacy="local" if "local" in {top.privacy, own.privacy} else "any",
        check=keys.check,
        expect=None if keys.expect is None else MappingProxyType(keys.expect),
        limits=own.limits.limits().meet(top.limits.limits()),
        isolation=keys.isolation,
        deliver=keys.deliver,
        setup=keys.setup,
        copy=tuple(keys.copy_),
        strategy=keys.strategy,
        fallback=keys.fallback,
        handoff=keys.handoff,
        detached=keys.detached,
        retries=keys.retries,
        delegation=keys.delegation,
        recovery=keys.recovery,
        retry_safe=keys.retry_safe,
        requires=tuple(keys.requires),
        env=MappingProxyType({**top.env, **own.env}),
        env_from=tuple(keys.env_from),
    )


# --- what belongs together -----------------------------------------------------------------------


def _schema_problems(model: TaskModel) -> Iterator[Problem]:
    schemas: list[tuple[Where, _Keys]] = [((), model)]
    schemas += [(("tasks", at), item) for at, item in enumerate(model.tasks)]
    for where, keys in schemas:
        if keys.expect is not None and (found := schema_problem(keys.expect)) is not None:
            path, why = found
            yield Problem((*where, "expect", *path), f"not a JSON Schema: {why}")


def _graph_problems(file: TaskFile) -> Iterator[Problem]:
    """What is wrong with the ids, the needs and the templates of the tasks."""
    if file.single:
        return
    known = [task.id for task in file.tasks]
    wrong = list(_id_problems(file.tasks))
    yield from wrong
    if wrong:
        return
    if round_ := cycle(file.needs):
        at = known.index(round_[0])
        told = " -> ".join(round_)
        yield Problem(("tasks", at, "needs"), f"a cycle, so that none of them can start: {told}")
        return
    needed = before(file.needs)
    for at, task in enumerate(file.tasks):
        for written, why in _template_problems(task, known, needed[task.id]):
            yield Problem(("tasks", at, "prompt"), why, written)


def _place_problems(file: TaskFile) -> Iterator[Problem]:
    """What is wanted of a workspace that it cannot give."""
    for at, task in enumerate(file.tasks):
        top: Where = () if file.single else ("tasks", at)
        if task.source is None:
            if task.deliver == "push":
                why = "`push` goes to where the workspace was fetched: `workspace: {git: URL}`"
                yield Problem((*top, "deliver"), why)
        else:
            found = _unfetchable(task, task.source)
            yield from (Problem((*top, *where), why) for where, why in found)


def _unfetchable(task: Task, source: Source) -> Iterator[tuple[Where, str]]:
    try:
        _git_url(source.url)
        _git_ref(source.ref or "HEAD")
    except ValueError as error:
        yield ("workspace",), f"git: {error}"
    if task.deliver == "apply":
        yield ("deliver",), "a fetched workspace has no files of yours to apply the result to"
    if task.isolation == "none":
        yield ("isolation",), "a fetched workspace is worked on in work trees alone"
    if task.include_uncommitted or task.copy:
        yield ("workspace",), "a fetched workspace has no untracked files to take along"


def _id_problems(tasks: Sequence[Task]) -> Iterator[Problem]:
    known = [task.id for task in tasks]
    for at, task in enumerate(tasks):
        if task.id in known[:at]:
            yield Problem(("tasks", at, "id"), f"{task.id!r} is the id of an earlier task, too")
        for number, need in enumerate(task.needs):
            where = ("tasks", at, "needs", number)
            if need not in known:
                yield Problem(where, f"no task {need!r}; {_nearest(need, known)}")
            elif need in task.needs[:number]:
                yield Problem(where, f"{need!r} is named twice")


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known[:20])}"


def _template_problems(
    task: Task, known: Sequence[str], needed: frozenset[str]
) -> Iterator[tuple[str, str]]:
    for written, meant in pieces(task.prompt):
        match meant:
            case Mistake(why=why):
                yield written, why
            case Reference(task=name) if name not in known:
                yield written, f"{written}: no task {name!r}; {_nearest(name, known)}"
            case Reference(task=name) if name not in needed:
                yield written, f"{written}: add {name!r} to the `needs` of {task.id!r}"
            case _:
                pass


def task_schema() -> dict[str, object]:
    """JSON Schema of a task file."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **TaskModel.model_json_schema()}


def _scripted(base_url: str | None, folder: Path) -> str | None:
    """`scripted:FILE` with the file made absolute; any other URL as it is."""
    if base_url is None or not base_url.startswith("scripted:"):
        return base_url
    return f"scripted:{folder / base_url.removeprefix('scripted:')}"


def _fields(where: Where) -> Mapping[str, FieldInfo]:
    """What is known of the keys at a place of a task file; empty where any key goes."""
    match where:
        case ():
            return _by_key(TaskModel)
        case ("tasks", int()):
            return _by_key(ItemModel)
        case ("limits",) | ("tasks", int(), "limits"):
            return LimitsModel.model_fields
        case ("workspace",) | ("tasks", int(), "workspace"):
            return {**ScratchModel.model_fields, **GitModel.model_fields}
        case _:
            return {}


def _by_key(model: type[_Keys]) -> Mapping[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _keys_of(location: Where) -> Where:
    """The location without pydantic's own words: a union's member, and `[key]` for a key."""
    match location:
        case ("tasks", int() as at, *rest):
            return ("tasks", at, *_keys_of(tuple(rest)))
        case ("workspace", _, *rest):
            return ("workspace", *rest)
        case ("env", key, _):
            return ("env", key)
        case _:
            return location


KINDS: tuple[Kind, ...] = get_args(Kind)
