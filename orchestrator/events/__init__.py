"""The one event schema: what an agent or the supervisor says (`Update`), and the same, stamped
(`Event`).

Updates are plain dataclasses: building and dumping one is on the hot path (0.2 us each way, 0.9
when frozen and slotted). Nobody mutates them. In an update, None means "not stated"; it is an
upsert by id. How an event is written and read is in `orchestrator.events.wire`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, TypeVar, dataclass_transform

from orchestrator.errors import OutcomeError

SCHEMA_VERSION = 1

# Closed vocabularies, verbatim from the Agent Client Protocol (StopReason: plus our `error`).
ToolKind: TypeAlias = Literal[
    "read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"
]
ToolCallStatus: TypeAlias = Literal["pending", "in_progress", "completed", "failed"]
StopReason: TypeAlias = Literal[
    "end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled", "error"
]
PlanStatus: TypeAlias = Literal["pending", "in_progress", "completed"]

Status: TypeAlias = Literal[
    "succeeded",
    "failed",
    "denied",
    "refused",
    "unavailable",
    "auth_failed",
    "model_not_found",
    "rate_limited",
    "context_overflow",
    "budget_exceeded",
    "stalled",
    "timed_out",
    "cancelled",
    "interrupted",
    "conflict",
    "skipped",
    "unroutable",
]
ErrorKind: TypeAlias = Literal[
    # named like the status they lead to
    "denied",
    "refused",
    "unavailable",
    "auth_failed",
    "model_not_found",
    "rate_limited",
    "context_overflow",
    "budget_exceeded",
    "stalled",
    "timed_out",
    "cancelled",
    "interrupted",
    "unroutable",
    "conflict",
    "skipped",
    # the model server answered with a failure of its own (5xx): `unavailable`
    "server_error",
    # it could not load the model: `unavailable`
    "out_of_memory",
    "load_failed",
    # all others: `failed`
    "tools_unsupported",
    "route_mismatch",
    "invalid_request",
    "bad_usage",
    "max_turns",
    "incomplete",
    "crashed",
    "no_change",
    "check_failed",
    "invalid_answer",
    "setup_failed",
    "output_limit",
    "disk_full",
    "spawn",
    "unknown",
]
Tier: TypeAlias = Literal["local", "cloud"]
Auth: TypeAlias = Literal["key", "login", "none"]
"""With what an agent comes to its model: a key, the CLI's own login, or neither."""
CostSource: TypeAlias = Literal["agent", "prices", "local", "subscription", "mixed"]
"""Who says what was paid: the CLI, a list of prices, the place (a local model costs nothing), or
nobody (a login is not paid by the token). `mixed`: a sum of several.
"""
Source: TypeAlias = Literal["agent", "supervisor"]


class Raw(NamedTuple):
    """Where a line stands in a run's spool file: stream, offset and length in bytes."""

    stream: str
    offset: int
    length: int


Place: TypeAlias = tuple[str, int, int]
"""A `Raw` as a plain tuple: making a named one takes as long as writing an event."""


# --- values inside updates -----------------------------------------------------------------------


Kind = TypeVar("Kind")


class Plain:
    """`==` and `repr` of all updates, written once: generating them for each class took half of
    the time that importing this module takes.
    """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        stated = ((name, value) for name, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in stated)})"


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def _plain(cls: type[Kind]) -> type[Kind]:
    """A dataclass that is built by keyword only."""
    return dataclass(kw_only=True, eq=False, repr=False)(cls)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def _quick(cls: type[Kind]) -> type[Kind]:
    """A dataclass that may be built by position, too: twice as fast; for common updates."""
    return dataclass(eq=False, repr=False)(cls)


@_quick
class Location(Plain):
    """A place that a tool touched. `line` counts from 1."""

    path: str
    line: int | None = None


@_quick
class PlanEntry(Plain):
    """One step of an agent's plan."""

    text: str
    status: PlanStatus


@_plain
class Considered(Plain):
    """One agent that a route looked at, and why it was taken or not."""

    agent: str
    chosen: bool
    reason: str


@_plain
class Delivered(Plain):
    """Where `deliver` put the work. `push`: a branch in the repository that the workspace was
    fetched from. `bundle`, `patch`: in `content` (base64), to be applied onto the commit `base`.
    """

    form: Literal["push", "bundle", "patch"]
    base: str
    content: str | None = None


@_plain
class Changes(Plain):
    """What changed in a work tree. `diff` is unified, cut at a limit (`truncated`).

    `commit` holds the changes on `branch`, where the run had a work tree of its own.
    """

    files: list[str]
    insertions: int
    deletions: int
    diff: str | None = None
    truncated: bool = False
    commit: str | None = None
    branch: str | None = None
    delivered: Delivered | None = None


@_plain
class Failure(Plain):
    """Why a run did not succeed: kind, cause in one line, remedy in one line.

    `retryable`: whether the agent or the provider says that the same may work later; `resets_at`:
    from when on (RFC 3339, UTC), where one of them told. `limit`: the key under `limits:` that was
    passed.
    """

    kind: ErrorKind
    text: str
    hint: str | None = None
    retryable: bool | None = None
    resets_at: str | None = None
    limit: str | None = None


# --- updates: an agent's own words ---------------------------------------------------------------


@_plain
class SessionStarted(Plain):
    """The agent's own conversation began, or went on. `session_id` is what it can be resumed
    with.
    """

    type: Literal["session.started"] = "session.started"
    session_id: str
    model: str | None = None
    tools: list[str] | None = None


@_plain
class TurnStarted(Plain):
    """The agent began to work on a prompt."""

    type: Literal["turn.started"] = "turn.started"
    turn: int | None = None


@_plain
class TurnFinished(Plain):
    """The agent's own word that a turn ended: the terminal event that success needs."""

    type: Literal["turn.finished"] = "turn.finished"
    stop_reason: StopReason
    turn: int | None = None


@_quick
class MessageDelta(Plain):
    """A piece of a message's text. The whole follows as `Message` with the same id."""

    type: Literal["message.delta"] = field(default="message.delta", kw_only=True)
    text: str
    id: str | None = None
    role: Literal["assistant", "user"] = "assistant"


@_quick
class Message(Plain):
    """A whole message. The assistant's last one is the run's text."""

    type: Literal["message"] = field(default="message", kw_only=True)
    text: str
    id: str | None = None
    role: Literal["assistant", "user"] = "assistant"


@_quick
class ThoughtDelta(Plain):
    """A piece of the model's reasoning."""

    type: Literal["thought.delta"] = field(default="thought.delta", kw_only=True)
    text: str
    id: str | None = None


@_quick
class Thought(Plain):
    """A whole block of the model's reasoning."""

    type: Literal["thought"] = field(default="thought", kw_only=True)
    text: str
    id: str | None = None


@_quick
class ToolCall(Plain):
    """A tool call: an upsert by id. `input` is any JSON value; `exit_code` is a command's."""

    type: Literal["tool_call"] = field(default="tool_call", kw_only=True)
    id: str
    status: ToolCallStatus | None = None
    kind: ToolKind | None = None
    title: str | None = None
    input: object = None
    output: str | None = None
    locations: list[Location] | None = None
    diff: str | None = None
    exit_code: int | None = None


@_plain
class Plan(Plain):
    """The agent's plan, whole: it replaces the one before."""

    type: Literal["plan"] = "plan"
    entries: list[PlanEntry]
    id: str | None = None


@_plain
class Permission(Plain):
    """The agent asked to do something, or was allowed or denied it. `always`: it was allowed this
    kind of thing for the rest of its session.
    """

    type: Literal["permission"] = "permission"
    id: str
    status: Literal["requested", "granted", "denied"]
    tool: str | None = None
    reason: str | None = None
    always: bool | None = None


@_plain
class Subagent(Plain):
    """An agent that this agent started. `child_task_id` is set when it does a sub-task of ours,
    `child_run_id` when that has a run; only of such a one it is told when it was `requested`.
    """

    type: Literal["subagent"] = "subagent"
    id: str
    status: Literal["requested", "started", "completed", "failed"]
    child_agent: str | None = None
    child_run_id: str | None = None
    child_task_id: str | None = None


@_plain
class Usage(Plain):
    """Tokens and cost, always a delta for this run; the sum of all is the run's. None is unknown, 0
    is zero.

    `input_tokens` excludes cached tokens; `output_tokens` includes `reasoning_tokens`. A call with
    the `cost_source` `agent` and no cost has its cost in the usage of its turn.
    """

    type: Literal["usage"] = "usage"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    cost_source: CostSource | None = None
    scope: Literal["call", "turn", "run"] = "call"


@_plain
class Context(Plain):
    """Occupancy of the model's context window, in tokens. Never confused with usage."""

    type: Literal["context"] = "context"
    used: int | None = None
    size: int | None = None


@_plain
class RateLimit(Plain):
    """The provider's word on its limits; `resets_at` is RFC 3339. No failure: mostly it only tells
    how much is used. `exhausted`: whether nothing is left.
    """

    type: Literal["rate_limit"] = "rate_limit"
    status: str
    resets_at: str | None = None
    exhausted: bool | None = None


@_plain
class Retry(Plain):
    """A request is tried again by the agent itself, or by the supervisor the whole task, in a run
    of its own; `delay_s` in seconds.
    """

    type: Literal["retry"] = "retry"
    reason: str
    attempt: int | None = None
    of: int | None = None
    delay_s: float | None = None


@_plain
class Notice(Plain):
    """Something worth knowing that decides nothing."""

    type: Literal["notice"] = "notice"
    text: str


@_plain
class Error(Plain):
    """Something failed. The last one before an unsuccessful end is the cause; `hint` is the
    remedy, `resets_at` (RFC 3339, UTC) the time from when on it may work again.
    """

    type: Literal["error"] = "error"
    kind: ErrorKind
    text: str
    retryable: bool | None = None
    hint: str | None = None
    resets_at: str | None = None


@_quick
class Output(Plain):
    """A line that is not of the agent's protocol: plain text."""

    type: Literal["output"] = field(default="output", kw_only=True)
    stream: str
    text: str


@_quick
class Unparsed(Plain):
    """A line that begins as JSON and that no rule of the adapter knows, or that cannot be read:
    `reason` says which. Never dropped; `text` may be cut, the spool has it whole.
    """

    type: Literal["unparsed"] = field(default="unparsed", kw_only=True)
    stream: str
    text: str
    reason: str


# --- updates: the supervisor's -------------------------------------------------------------------


@_plain
class Outcome(Plain):
    """How a run or a task ended, with the facts that led to it. Decided by `outcome.decide`.

    `verified` is what the task's check said, None without a check. `usage` sums the run's; an
    unknown cost is None, never 0. `changes` is None when nobody could look. `answer` is the JSON
    value in the text, where the task expects one.
    """

    status: Status
    verified: bool | None = None
    text: str | None = None
    session_id: str | None = None
    usage: Usage | None = None
    changes: Changes | None = None
    error: Failure | None = None
    evidence: list[str] = field(default_factory=list[str])
    agent: str | None = None
    model: str | None = None
    run_id: str | None = None
    duration_s: float | None = None
    answer: object = None

    @property
    def ok(self) -> bool:
        """Succeeded, and verified where it was checked."""
        return self.status == "succeeded" and self.verified is not False

    def check(self) -> None:
        """Raise `OutcomeError` unless the run succeeded (and was verified, where checked)."""
        if not self.ok:
            text = self.error.text if self.error else self.status
            raise OutcomeError(
                f"{self.status}: {text}",
                status=self.status,
                hint=self.error.hint if self.error else None,
            )


@_plain
class JobOutcome(Outcome):
    """How an invocation ended: its tasks' outcomes by id, the status and cause of the worst."""

    tasks: dict[str, Outcome] = field(default_factory=dict[str, Outcome])


@_plain
class TaskStarted(Plain):
    """A task began; it may have 0..n runs. `id` is the envelope's task_id."""

    type: Literal["task.started"] = "task.started"
    id: str
    kind: str | None = None
    needs: list[str] | None = None


@_plain
class TaskFinished(Plain):
    """A task ended."""

    type: Literal["task.finished"] = "task.finished"
    outcome: Outcome


@_plain
class JobFinished(Plain):
    """An invocation ended: the last event of a job, exactly one. The tasks' outcomes are without
    their diffs.
    """

    type: Literal["job.finished"] = "job.finished"
    outcome: JobOutcome


@_plain
class RunStarted(Plain):
    """One attempt began, by the envelope's agent; `attempt` counts from 1 in its task. `argv` is
    redacted; `server` is the base URL.
    """

    type: Literal["run.started"] = "run.started"
    adapter: str
    attempt: int | None = None
    adapter_version: str | None = None
    cli_version: str | None = None
    model: str | None = None
    server: str | None = None
    tier: Tier | None = None
    auth: Auth | None = None
    argv: list[str] | None = None
    cwd: str | None = None


@_plain
class RunFinished(Plain):
    """One attempt ended: the last event of a run, exactly one."""

    type: Literal["run.finished"] = "run.finished"
    outcome: Outcome


@_plain
class RouteSelected(Plain):
    """The envelope's agent was chosen, and why, with every agent that was considered.

    `enforced` is what holds the task to `privacy: local`: the choice alone, no sandbox. None: it is
    not private.
    """

    type: Literal["route.selected"] = "route.selected"
    model: str | None
    reason: str
    considered: list[Considered]
    enforced: Literal["routing"] | None = None


@_plain
class RouteVerified(Plain):
    """What really served. `claimed` (the agent's word) is never shown as verified."""

    type: Literal["route.verified"] = "route.verified"
    method: Literal["gateway", "server", "claimed"]
    model: str | None = None
    server: str | None = None


@_plain
class RouteEscalated(Plain):
    """The task moves on to another agent. `cost_usd`: what that is expected to cost; None is
    unknown.
    """

    type: Literal["route.escalated"] = "route.escalated"
    from_agent: str
    to_agent: str
    why: str
    cost_usd: float | None = None


@_plain
class ProcessSpawned(Plain):
    """The agent's process was started."""

    type: Literal["process.spawned"] = "process.spawned"
    pid: int


@_plain
class ProcessExited(Plain):
    """The agent's process ended: exit status or signal number; CPU seconds, peak memory in
    bytes.
    """

    type: Literal["process.exited"] = "process.exited"
    pid: int
    status: int | None = None
    signal: int | None = None
    cpu_s: float | None = None
    max_rss: int | None = None


@_plain
class Survivor(Plain):
    """A process that outlived its agent, and what became of it.

    `command`: its arguments, those beyond 1 KiB left out. `found`, how it was known to be the
    agent's: `descent` (seen below it), `session`, `environment` (which names the run), or `alone`
    (at its birth no other agent was there).
    """

    pid: int
    command: str
    found: str
    fate: Literal["killed", "kept"] = "killed"


@_plain
class ProcessReaped(Plain):
    """What outlived the agent: `survivors` were killed, `kept` were left alone because the task
    said so. `processes` names the first 20.
    """

    type: Literal["process.reaped"] = "process.reaped"
    survivors: int
    kept: int = 0
    processes: list[Survivor] = field(default_factory=list[Survivor])


@_plain
class Stall(Plain):
    """No progress for `seconds`; `budget` says which wait it was, `last` what the last sign of life
    was: `start`, `output`, `bytes`, `cpu` or `child`.
    """

    type: Literal["stall"] = "stall"
    budget: str
    seconds: float
    action: str
    last: str | None = None


@_plain
class Limit(Plain):
    """A limit was reached. `value` is what was measured, in the limit's own unit.

    `enforced`: after what it could be noticed, a call or the end of a turn; `run` is at any moment.
    `action`: `stop`, or `none` where the agent had already ended its turn.
    """

    type: Literal["limit"] = "limit"
    limit: str
    value: float
    action: str
    enforced: Literal["call", "turn", "run"] = "run"


@_plain
class JournalFull(Plain):
    """The disk is full: from here on events are missing. The spool has what the agent wrote, as far
    as the disk had room for that.
    """

    type: Literal["journal.full"] = "journal.full"
    text: str
    hint: str | None = None


@_plain
class WorkspaceChanged(Plain):
    """What the run changed in the work tree."""

    type: Literal["workspace.changed"] = "workspace.changed"
    changes: Changes


@_plain
class Check(Plain):
    """The task's check ran: exit status (None: it did not end by itself) and the end of its
    output.
    """

    type: Literal["check"] = "check"
    command: str
    passed: bool
    exit: int | None = None
    output: str | None = None


Update: TypeAlias = (
    SessionStarted
    | TurnStarted
    | TurnFinished
    | MessageDelta
    | Message
    | ThoughtDelta
    | Thought
    | ToolCall
    | Plan
    | Permission
    | Subagent
    | Usage
    | Context
    | RateLimit
    | Retry
    | Notice
    | Error
    | Output
    | Unparsed
    | TaskStarted
    | TaskFinished
    | JobFinished
    | RunStarted
    | RunFinished
    | RouteSelected
    | RouteVerified
    | RouteEscalated
    | ProcessSpawned
    | ProcessExited
    | ProcessReaped
    | Stall
    | Limit
    | JournalFull
    | WorkspaceChanged
    | Check
)


@dataclass(eq=False, repr=False)  # by position, too: a third of the time that it takes by name
class Event(Plain):
    """An update, stamped. `seq` is gapless from 1 in its run, or in its job where `run_id` is None;
    `time` is RFC 3339, UTC, microseconds. `job_id` is None only in old records.
    """

    seq: int
    time: str
    run_id: str | None
    task_id: str | None
    agent: str | None
    source: Source
    update: Update
    parent_run_id: str | None = None
    raw: Raw | None = None
    job_id: str | None = None

    @property
    def type(self) -> str:
        """The update's type, such as `message`."""
        return self.update.type
