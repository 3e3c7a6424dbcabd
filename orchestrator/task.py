"""What is wanted (`Task`), read safely from a task file. Pure: every error names file, line,
column, key.

`parse_task` takes the file's bytes and gives a frozen `Task`; whether paths exist is the
supervisor's business. YAML is read as YAML 1.2 would be (`no` is a text), without aliases, tags or
duplicate keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
)

from orchestrator.document import PLAIN, EnvName, HttpUrl, Id, Text, Tree, Where

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
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
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
        Annotated[str, StringConstraints(pattern=PLAIN)],
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
    tree = Tree(file, _fields, _keys_of)
    return _task(tree.load(text), tree, folder)


def parse_flags(flags: Mapping[str, object], *, folder: Path) -> Task:
    """The task of a command line: keys and values as in a task file. Raises TaskFileError."""
    return _task(dict(flags), Tree(None, _fields, _keys_of), folder)


def _task(value: Mapping[str, object], tree: Tree, folder: Path) -> Task:
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


def _fields(where: Where) -> Mapping[str, FieldInfo]:
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


def _keys_of(location: Where) -> Where:
    """The location without pydantic's own words: a union's member, and `[key]` for a key."""
    match location:
        case ("workspace", _, *rest):
            return ("workspace", *rest)
        case ("env", key, _):
            return ("env", key)
        case _:
            return location


KINDS: tuple[Kind, ...] = get_args(Kind)
