"""A task as a value: what is wanted, within which limits, and the closed lists of words for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar, get_args

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
        return {name: value for name, value in self.env.items() if SECRET.search(name)}


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


SECRET = re.compile(
    r"(?i)(^|_)((api|access|private|secret)_?key|token|secret|password|passwd|credentials?)($|_)"
)

KINDS: tuple[Kind, ...] = get_args(Kind)
