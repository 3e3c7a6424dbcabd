"""How a run ended, decided from all the evidence. Pure; the exit status alone decides nothing.

Success needs all of: the agent's own terminal word, no error in its last turn, a clean exit, no
denial, no tool call left open and not only dead sub-agents (all forgiven if the check passed), for
editing kinds a changed tree, for reading kinds an answer, for all others at least an answer, a
change, a tool that did more than read or a check that passed, the answer that was expected, and no
check that failed.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeAlias

from orchestrator.adapter import Exit
from orchestrator.answer import Answer, read_answer
from orchestrator.events import (
    Changes,
    Check,
    Context,
    Error,
    ErrorKind,
    Failure,
    JobOutcome,
    Message,
    MessageDelta,
    Notice,
    Outcome,
    Output,
    Permission,
    Plan,
    RateLimit,
    SessionStarted,
    Status,
    StopReason,
    Subagent,
    Thought,
    ThoughtDelta,
    ToolCall,
    ToolCallStatus,
    ToolKind,
    TurnFinished,
    TurnStarted,
    Unparsed,
    Update,
    Usage,
)
from orchestrator.task import EDITING_KINDS, READING_KINDS, Task

Stopped: TypeAlias = Literal[
    "interrupted",
    "cancelled",
    "timed_out",
    "stalled",
    "budget_exceeded",
    "output_limit",
    "disk_full",
]
"""Why the supervisor itself ended a run."""

STATUS: Mapping[ErrorKind, Status] = MappingProxyType(
    {
        "denied": "denied",
        "refused": "refused",
        "unavailable": "unavailable",
        "server_error": "unavailable",
        "out_of_memory": "unavailable",
        "load_failed": "unavailable",
        "auth_failed": "auth_failed",
        "model_not_found": "model_not_found",
        "rate_limited": "rate_limited",
        "context_overflow": "context_overflow",
        "budget_exceeded": "budget_exceeded",
        "max_turns": "budget_exceeded",
        "stalled": "stalled",
        "timed_out": "timed_out",
        "cancelled": "cancelled",
        "interrupted": "interrupted",
        "unroutable": "unroutable",
        "conflict": "conflict",
        "skipped": "skipped",
    }
)
"""The status that a kind of error leads to; every other kind is `failed`."""

MOST_CALLS = 10_000
"""How many tool calls, denials and sub-agents are held by their ids: a run may make any number."""

_DECIDE_NOTHING = frozenset[type[object]](
    {Context, MessageDelta, Notice, Output, Plan, Thought, ThoughtDelta, Unparsed, Usage}
)
_ENDED: frozenset[ToolCallStatus] = frozenset({"completed", "failed"})
_READS: frozenset[ToolKind] = frozenset({"read", "search", "think", "fetch", "switch_mode"})
_EDITS: frozenset[ToolKind] = frozenset({"edit", "delete", "move"})
_ASKED_TO_STOP = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@dataclass(kw_only=True)
class Digest:
    """What the updates of one run say, folded as they come."""

    session_id: str | None = None
    model: str | None = None
    text: str | None = None
    terminal: StopReason | None = None
    error: Error | None = None
    limit: RateLimit | None = None
    denials: dict[str, Permission] = field(default_factory=dict[str, Permission])
    subagents: dict[str, str] = field(default_factory=dict[str, str])
    calls: dict[str, ToolCallStatus] = field(default_factory=dict[str, ToolCallStatus])
    _kinds: dict[str, ToolKind] = field(default_factory=dict[str, ToolKind])
    failures: int = 0
    # Tool calls that failed since the last one that did not.
    _open: dict[str, None] = field(default_factory=dict[str, None])
    _ended: dict[str, None] = field(default_factory=dict[str, None])
    # Of what ended so long ago that it is not held any more.
    _forgotten: int = 0
    _acted: bool = False
    _wrote: bool = False
    _edited: bool = False
    _denied: int = 0
    _dead: int = 0
    _outlived: bool = False

    def add(self, *updates: Update) -> None:
        """Take updates into account."""
        # Most are tool calls or decide nothing: to try all patterns on them took longer than to
        # write them. Asked by class, which takes a fifth of the time that `update.type` takes.
        for update in updates:
            if type(update) is ToolCall:
                self._tool_call(update)
            elif type(update) not in _DECIDE_NOTHING:
                self._add(update)

    def _add(self, update: Update) -> None:
        match update:
            case Message(role="assistant", text=text):
                self.text = text
            case SessionStarted(session_id=session_id, model=model):
                self.session_id = session_id
                self.model = model or self.model
            case TurnStarted():
                self.terminal, self.error = None, None
            case TurnFinished(stop_reason=stop_reason):
                self.terminal = stop_reason
            case Error():
                self.error = update
            case RateLimit():
                self.limit = update
            case Subagent(child_task_id=None):
                self._subagent(update)
            case Permission():
                self._permission(update)
            case _:
                pass

    @property
    def open_calls(self) -> list[str]:
        """Ids of the tool calls that began and did not end."""
        return list(self._open)

    @property
    def steps(self) -> int:
        """How many tool calls there were. One that is told again after 10,000 others is two."""
        return self._forgotten + len(self.calls)

    @property
    def acted(self) -> bool:
        """Whether any tool call was completed."""
        return self._acted or "completed" in self.calls.values()

    @property
    def denied(self) -> int:
        """How often it was denied something."""
        return self._denied + len(self.denials)

    @property
    def dead_subagents(self) -> int:
        """How many sub-agents failed, if not one of them came to an end."""
        failed = self._dead + sum(status == "failed" for status in self.subagents.values())
        return 0 if self._outlived or "completed" in self.subagents.values() else failed

    @property
    def wrote(self) -> bool:
        """Whether a tool call that may have changed something was completed."""
        return self._wrote or any(map(self._has_written, self.calls))

    @property
    def edited(self) -> bool:
        """Whether a call of a tool that edits was completed."""
        return self._edited or any(map(self._has_edited, self.calls))

    def _has_written(self, id_: str) -> bool:
        return self.calls[id_] == "completed" and self._kinds.get(id_, "other") not in _READS

    def _has_edited(self, id_: str) -> bool:
        return self.calls[id_] == "completed" and self._kinds.get(id_) in _EDITS

    def _tool_call(self, call: ToolCall) -> None:
        id_, stated, calls = call.id, call.status, self.calls
        status = calls[id_] = stated or calls.get(id_, "pending")
        if status in _ENDED:
            self._ended[id_] = None
            self._open.pop(id_, None)
            if stated is not None:
                self.failures = self.failures + 1 if stated == "failed" else 0
        else:
            self._open[id_] = None
            self._ended.pop(id_, None)
        if call.kind is not None:
            self._kinds[id_] = call.kind
        if len(calls) > MOST_CALLS:
            self._forget(next(iter(self._ended or self._open)))

    def _forget(self, id_: str) -> None:
        """Hold a call no longer: the first that ended, of ten thousand open ones the oldest."""
        self._forgotten += 1
        self._acted = self._acted or self.calls[id_] == "completed"
        self._wrote = self._wrote or self._has_written(id_)
        self._edited = self._edited or self._has_edited(id_)
        for held in (self.calls, self._kinds, self._open, self._ended):
            held.pop(id_, None)

    def _permission(self, permission: Permission) -> None:
        if permission.status != "denied":
            self.denials.pop(permission.id, None)
            return
        self.denials[permission.id] = permission
        if len(self.denials) > MOST_CALLS:
            del self.denials[next(iter(self.denials))]
            self._denied += 1

    def _subagent(self, subagent: Subagent) -> None:
        self.subagents[subagent.id] = subagent.status
        if len(self.subagents) > MOST_CALLS:
            status = self.subagents.pop(next(iter(self.subagents)))
            self._outlived = self._outlived or status == "completed"
            self._dead += status == "failed"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of a run that is over.

    `exit` is None if nothing was ever started. `stopped` and `stopped_why`: the supervisor ended
    it, for the limit `stopped_limit` if for one.
    `changes` is None if nobody looked at the work tree, `unseen` if nobody could. `usage` is the
    run's, summed. `unheld` is the limit that nothing was counted against.
    """

    task: Task
    digest: Digest
    exit: Exit | None
    stopped: Stopped | None = None
    stopped_why: str | None = None
    stopped_limit: str | None = None
    changes: Changes | None = None
    check: Check | None = None
    usage: Usage | None = None
    unseen: bool = False
    unheld: str | None = None

    @cached_property
    def answer(self) -> Answer | None:
        """What was answered, where the task expects an answer."""
        expected = self.task.expect
        return None if expected is None else read_answer(self.digest.text, expected)


def finished(facts: Facts) -> bool:
    """The agent says that it is done and ended cleanly: worth a look at its work (the check)."""
    exit_ = facts.exit
    return (
        facts.stopped is None
        and facts.digest.terminal == "end_turn"
        and facts.digest.error is None
        and exit_ is not None
        and (exit_.dismissed or (exit_.status, exit_.signal) == (0, None))
    )


def decide(facts: Facts) -> Outcome:
    """The one outcome. `evidence` lists the facts that led to it, the deciding one last."""
    failure = _failure(facts)
    status: Status = "succeeded" if failure is None else STATUS.get(failure.kind, "failed")
    digest = facts.digest
    return Outcome(
        status=status,
        verified=None if facts.check is None else facts.check.passed,
        text=digest.text,
        session_id=digest.session_id,
        usage=facts.usage,
        changes=facts.changes,
        error=failure,
        evidence=_evidence(facts, failure),
        model=digest.model,
        answer=None if facts.answer is None else facts.answer.value,
    )


def _failure(facts: Facts) -> Failure | None:
    """The first reason why this was no success, the strongest evidence first."""
    for reason in (
        _stopped,
        _signalled,
        _error,
        _terminal,
        _exit,
        _denied,
        _left_open,
        _abandoned,
        _work,
        _answer,
        _check,
    ):
        if (failure := reason(facts)) is not None:
            return failure
    return None


def _stopped(facts: Facts) -> Failure | None:
    match facts.stopped:
        case None:
            return None
        case kind:
            text = facts.stopped_why or f"stopped: {kind}"
            again = kind == "stalled" or None  # another attempt may be heard
            return Failure(kind=kind, text=text, limit=facts.stopped_limit, retryable=again)


def _signalled(facts: Facts) -> Failure | None:
    number = facts.exit.signal if facts.exit and not facts.exit.dismissed else None
    if number is None:
        return None
    name = signal_name(number)
    if number in _ASKED_TO_STOP:
        return Failure(kind="interrupted", text=f"the agent was ended by {name}")
    return Failure(kind="crashed", text=f"the agent was killed by {name}")


def _error(facts: Facts) -> Failure | None:
    error = facts.digest.error
    if error is None:
        return None
    return Failure(
        kind=error.kind,
        text=error.text,
        hint=error.hint,
        retryable=error.retryable,
        resets_at=error.resets_at or _reset(facts.digest, error.kind),
    )


def _reset(digest: Digest, kind: ErrorKind) -> str | None:
    """When the limit that was hit is lifted: the provider's last word on a limit used up."""
    limit = digest.limit
    if kind != "rate_limited" or limit is None or not limit.exhausted:
        return None
    return limit.resets_at


def _terminal(facts: Facts) -> Failure | None:
    match facts.digest.terminal:
        case "end_turn":
            return None
        case "max_tokens":
            return Failure(kind="incomplete", text="the model's answer was cut at its token limit")
        case "max_turn_requests":
            return Failure(kind="max_turns", text="the agent used up its steps before it was done")
        case "refusal":
            return Failure(kind="refused", text="the model refused")
        case "cancelled":
            return Failure(kind="interrupted", text="the agent's turn was cancelled")
        case None:
            return Failure(kind="incomplete", text=_silent(facts.exit))
        case _:  # "error"
            return Failure(kind="unknown", text="the agent says that its turn failed")


def _silent(exit_: Exit | None) -> str:
    if exit_ is None:
        return "the agent was never started"
    status = "unknown" if exit_.status is None else exit_.status
    ended = f"the agent ended (exit {status}) without saying that it is done"
    last = exit_.stderr.strip().rsplit("\n", 1)[-1].strip()
    return f"{ended}: {last[:300]}" if last else ended


def _exit(facts: Facts) -> Failure | None:
    status = facts.exit.status if facts.exit else None
    if status == 0 or (facts.exit and facts.exit.dismissed):
        return None
    how = "how it ended is not known" if status is None else f"exited {status}"
    return Failure(kind="crashed", text=f"the agent said it is done, but {how}")


def _denied(facts: Facts) -> Failure | None:
    denials = facts.digest.denials
    if not denials or _passed(facts):
        return None
    last = denials[next(reversed(denials))]
    what = last.tool or last.reason or last.id
    if last.tool and last.reason:
        what = f"{last.tool} ({last.reason})"
    text = f"{facts.digest.denied} action(s) denied, the last: {what}"
    return Failure(kind="denied", text=text)


def _left_open(facts: Facts) -> Failure | None:
    calls = facts.digest.open_calls
    if not calls or _passed(facts):
        return None
    text = f"the agent ended with {len(calls)} tool call(s) still running"
    return Failure(kind="incomplete", text=text)


def _abandoned(facts: Facts) -> Failure | None:
    """An answer that stands on nothing: all sub-agents failed, and the agent did nothing itself."""
    dead = facts.digest.dead_subagents
    if not dead or facts.digest.acted or _passed(facts):
        return None
    text = f"all {dead} sub-agent(s) failed, and the agent did nothing itself"
    return Failure(kind="incomplete", text=text)


def _work(facts: Facts) -> Failure | None:
    kind, changes = facts.task.kind, facts.changes
    changed = _changed(facts)
    answered = bool((facts.digest.text or "").strip())
    if kind in EDITING_KINDS and not changed:
        what = "nobody could see a change" if changes is None else "nothing that git sees changed"
        a = "an" if kind[:1] == "e" else "a"
        return Failure(kind="no_change", text=f"{what}, and {a} {kind} task must change something")
    if kind in READING_KINDS and not answered:
        return Failure(kind="incomplete", text=f"no answer, and a {kind} task must give one")
    if not (changed or answered or facts.digest.wrote or _passed(facts)):
        return Failure(kind="incomplete", text="the agent neither answered nor changed anything")
    return None


def _answer(facts: Facts) -> Failure | None:
    problem = facts.answer.problem if facts.answer is not None else None
    if problem is None:
        return None
    return Failure(kind="invalid_answer", text=f"not the answer that was expected: {problem}")


def _changed(facts: Facts) -> bool:
    match facts.changes:
        case None if facts.unseen:
            # The agent's word for a command is no evidence; for an edit of its own, some.
            return facts.digest.edited or _passed(facts)
        case None:
            return facts.digest.wrote
        case changes:
            return bool(changes.files)


def _passed(facts: Facts) -> bool:
    return facts.check is not None and facts.check.passed


def _check(facts: Facts) -> Failure | None:
    check = facts.check
    if check is None or check.passed:
        return None
    how = "did not end in time" if check.exit is None else f"exited {check.exit}"
    return Failure(kind="check_failed", text=f"the check `{check.command}` {how}")


def _evidence(facts: Facts, failure: Failure | None) -> list[str]:
    digest, exit_ = facts.digest, facts.exit
    evidence = [f"terminal event: {digest.terminal or 'none'}"]
    match exit_:
        case Exit(dismissed=True):
            evidence.append("exit: none by itself; ended when its work was over")
        case None:
            evidence.append("exit: never started")
        case Exit(signal=int(number)):
            evidence.append(f"exit: {signal_name(number)}")
        case _:
            evidence.append(f"exit: {'unknown' if exit_.status is None else exit_.status}")
    if digest.open_calls:
        evidence.append(f"tool calls left open: {len(digest.open_calls)}")
    if digest.denied:
        evidence.append(f"denied: {digest.denied}")
    if digest.dead_subagents:
        evidence.append(f"sub-agents: all {digest.dead_subagents} failed")
    if digest.limit is not None and digest.limit.exhausted:
        resets = digest.limit.resets_at or "it is not told when"
        evidence.append(f"limit: used up, resets: {resets}")
    match facts.changes:
        case None:
            evidence.append("changes: not looked at")
        case changes:
            size = f"{len(changes.files)} file(s), +{changes.insertions} -{changes.deletions}"
            evidence.append(f"changes: {size}")
    if facts.answer is not None and facts.answer.problem is None:
        evidence.append("answer: as expected")
    if facts.check is not None:
        evidence.append(f"check: {'passed' if facts.check.passed else 'failed'}")
    if facts.task.privacy == "local":
        evidence.append(ROUTING_ONLY)
    if facts.unheld is not None:
        evidence.append(not_held(facts.unheld))
    if failure is not None:
        evidence.append(f"{failure.kind}: {failure.text}")
    return evidence


ROUTING_ONLY = "privacy: routing only (a local model was chosen; no sandbox holds the agent)"
"""What `privacy: local` amounts to, until a sandbox enforces it."""


def not_held(limit: str) -> str:
    """That a limit was none."""
    return f"limits.{limit} could not be held: the agent does not tell what it uses"


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; the number for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# --- a job ---------------------------------------------------------------------------------------

SEVERITY: tuple[Status, ...] = (
    "succeeded",
    "skipped",
    "failed",
    "refused",
    "denied",
    "conflict",
    "context_overflow",
    "model_not_found",
    "rate_limited",
    "unavailable",
    "auth_failed",
    "unroutable",
    "stalled",
    "timed_out",
    "budget_exceeded",
    "cancelled",
    "interrupted",
)
"""From good to bad: what a job's status is taken by."""


def together(tasks: Mapping[str, Outcome]) -> JobOutcome:
    """The outcome of a job: the worst of its tasks' (the first of the worst), without usage and
    time.
    """
    worst = max(tasks, key=lambda id_: SEVERITY.index(tasks[id_].status))
    error, checked = tasks[worst].error, [tasks[id_].verified for id_ in tasks]
    if error is not None and len(tasks) > 1:
        error = Failure(kind=error.kind, text=f"task {worst!r}: {error.text}", hint=error.hint)
    return JobOutcome(
        status=tasks[worst].status,
        verified=False if False in checked else True if True in checked else None,
        error=error,
        evidence=[f"{id_}: {_told(outcome)}" for id_, outcome in tasks.items()],
        tasks=dict(tasks),
    )


def _told(outcome: Outcome) -> str:
    verified = {True: ", verified", False: ", the check failed", None: ""}[outcome.verified]
    why = f" ({outcome.error.kind})" if outcome.error else ""
    return f"{outcome.status}{verified}{why}"
