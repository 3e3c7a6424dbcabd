"""The keys of a task file, with their types and descriptions: what is validated, and what the JSON
Schema is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
)

from orchestrator.document import PLAIN, EnvName, HttpUrl, Id, Label, Text, Where
from orchestrator.task.scalars import (
    Bytes,
    Count,
    Depth,
    Dollars,
    Folder,
    Seconds,
    Switch,
    TaskId,
    git_ref,
    git_url,
    inside,
    no_secret,
)
from orchestrator.task.value import (
    Access,
    Deliver,
    Detached,
    Fallback,
    Handoff,
    Isolation,
    Kind,
    Limits,
    Privacy,
    Recovery,
    Strategy,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


TASKS = 1000
"""Most tasks in a file."""


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

    git: Annotated[Text, AfterValidator(git_url)] = Field(
        description="The repository's address: https://, ssh://, file:/// or USER@HOST:PATH."
    )
    ref: Annotated[Text, AfterValidator(git_ref)] | None = Field(
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


class Keys(_Model):
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
    copy_: list[Annotated[Text, AfterValidator(inside)]] = Field(
        default=[], alias="copy", description="Untracked files that a work tree takes along."
    )
    files: list[Annotated[Text, AfterValidator(inside)]] = Field(
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
        Annotated[EnvName, AfterValidator(no_secret)],
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


class ItemModel(Keys):
    """One of several tasks."""

    model_config = ConfigDict(title="Task")

    id: TaskId = Field(description="Name of the task in this file.")
    needs: list[TaskId] = Field(
        default=[], description="Tasks that must have succeeded before; their ids."
    )
    prompt: Text = Field(
        description="What the agent shall do; {{ tasks.ID.text }} is a needed task's answer."
    )


class TaskModel(Keys):
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


def task_schema() -> dict[str, object]:
    """JSON Schema of a task file."""
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **TaskModel.model_json_schema()}


def fields_at(where: Where) -> Mapping[str, FieldInfo]:
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


def _by_key(model: type[Keys]) -> Mapping[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def keys_of(location: Where) -> Where:
    """The location without pydantic's own words: a union's member, and `[key]` for a key."""
    match location:
        case ("tasks", int() as at, *rest):
            return ("tasks", at, *keys_of(tuple(rest)))
        case ("workspace", _, *rest):
            return ("workspace", *rest)
        case ("env", key, _):
            return ("env", key)
        case _:
            return location
