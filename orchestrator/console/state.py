"""What is on screen, as a fold of events: per task who does it, what it is doing now, what it has
used, how it ended. Pure; nothing here knows how it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from orchestrator.console.text import one_line
from orchestrator.events import (
    Check,
    Event,
    JobFinished,
    Limit,
    Message,
    MessageDelta,
    Outcome,
    Permission,
    ProcessExited,
    Retry,
    RouteEscalated,
    RouteSelected,
    RunFinished,
    RunStarted,
    SessionStarted,
    Stall,
    TaskFinished,
    TaskStarted,
    Thought,
    ThoughtDelta,
    Tier,
    ToolCall,
    TurnStarted,
    Usage,
    WorkspaceChanged,
)
from orchestrator.usage import Tally

THINKING = "thinking"
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task. Times are those of its events; `calls` are the open tool calls, title by id.
    `runs` are its own, `parent_run` is the one that handed it on.
    """

    id: str
    needs: tuple[str, ...] = ()
    agent: str | None = None
    model: str | None = None
    tier: Tier = "cloud"
    started: str | None = None
    ended: str | None = None
    doing: str = "waiting"
    since: str | None = None
    calls: Mapping[str, str] = field(default_factory=lambda: _NONE)
    used: Tally = Tally()
    announced: bool = False
    outcome: Outcome | None = None
    runs: tuple[str, ...] = ()
    parent_run: str | None = None

    @property
    def running(self) -> bool:
        return self.started is not None and self.outcome is None

    @property
    def usage(self) -> Usage | None:
        """What is known of it."""
        return self.used.usage if self.outcome is None else self.outcome.usage


@dataclass(frozen=True, kw_only=True)
class Board:
    """All tasks, in the order in which they were named or seen; the job's outcome at its end."""

    rows: Mapping[str, Row] = field(default_factory=dict[str, Row])
    outcome: Outcome | None = None


def board(ids: Iterable[str] = ()) -> Board:
    """The board before the first event; `ids` are the tasks that will come."""
    return Board(rows={id_: Row(id=id_) for id_ in ids})


def nested(rows: Iterable[Row]) -> list[Row]:
    """The rows, each after the one that handed it on, its id drawn as a branch of that."""
    every = list(rows)
    of_run = {run: row.id for row in every for run in row.runs}
    children: dict[str | None, list[Row]] = {}
    for row in every:
        children.setdefault(of_run.get(row.parent_run or ""), []).append(row)
    drawn = list(_branch(children, None, ""))
    if len(drawn) == len(every):
        return drawn
    return every  # somebody is said to be above itself: that is no tree


def _branch(
    children: Mapping[str | None, Sequence[Row]], of: str | None, before: str
) -> Iterator[Row]:
    below = children.get(of, ())
    for at, row in enumerate(below, 1):
        last = at == len(below)
        mark, deeper = ("", "") if of is None else ("└ ", "  ") if last else ("├ ", "│ ")
        yield replace(row, id=f"{before}{mark}{row.id}")
        yield from _branch(children, row.id, before + deeper)


def family(before: Board, run: str) -> Board:
    """The task that has this run, and all that came of it by handing on."""
    kept: dict[str, Row] = {}
    runs = {run}
    for row in before.rows.values():  # who hands on comes before what is handed on
        if run in row.runs or row.parent_run in runs:
            kept[row.id] = row
            runs |= set(row.runs)
    return Board(rows=kept)


def fold(before: Board, event: Event) -> Board:
    """The board after the event."""
    if isinstance(event.update, JobFinished):
        return replace(before, outcome=event.update.outcome)
    if isinstance(event.update, Limit) and event.task_id is None and event.run_id is None:
        return before  # a limit of all tasks: each tells what became of it
    key = _key(event)
    old = before.rows.get(key) or Row(id=key)
    new = _row(old, event)
    if new is old:
        return before
    return replace(before, rows={**before.rows, key: new})


def _key(event: Event) -> str:
    match event.update:
        case TaskStarted(id=id_):
            return id_
        case _:
            return event.task_id or event.run_id or "task"


def _row(row: Row, event: Event) -> Row:
    if row.started is None:
        row = replace(row, started=event.time, agent=event.agent)
    match event.update:
        case TaskStarted(needs=needs):
            row = replace(row, parent_run=event.parent_run_id)
            return _doing(replace(row, needs=tuple(needs or ()), announced=True), "starting", event)
        case RouteSelected(model=model):
            return _doing(replace(row, agent=event.agent, model=model), "starting", event)
        case RunStarted():
            return _doing(_started(row, event, event.update), "starting", event)
        case RunFinished(outcome=outcome):
            return _run_ended(row, outcome, event)
        case TaskFinished(outcome=outcome):
            return _ended(row, outcome, event)
        case ToolCall():
            return _called(row, event.update, event)
        case Usage():
            return replace(row, used=row.used.plus(event.update))
        case _:
            return _doing(row, _told(event, row.doing), event)


def _told(event: Event, before: str) -> str:
    """What an agent does now, as far as the event says anything new about it."""
    match event.update:
        case SessionStarted() | TurnStarted() | Thought() | ThoughtDelta():
            return THINKING
        case MessageDelta(role="assistant"):
            return "writing"
        case Message(role="assistant", text=text) if text.strip():
            return one_line(text)
        case Permission(status="requested", tool=tool):
            return f"asks for permission: {one_line(tool or event.update.id)}"
        case Retry(reason=reason, attempt=attempt, of=of):
            return f"tries again{tries(attempt, of)}: {one_line(reason)}"
        case RouteEscalated(to_agent=agent):
            return f"moves on to {one_line(agent)}"
        case Stall(action="stop") | Limit(action="stop"):
            return "is being stopped"
        case ProcessExited():
            return "ended; looking at what changed"
        case WorkspaceChanged():
            return "checking"
        case Check(passed=passed):
            return "the check passed" if passed else "the check failed"
        case _:
            return before


def titled(before: Board, event: Event) -> Event:
    """The event; a late word on a tool call has the title that an earlier one gave it."""
    match event.update:
        case ToolCall(id=id_, title=None):
            row = before.rows.get(_key(event))
            title = row.calls.get(id_) if row else None
            return replace(event, update=replace(event.update, title=title)) if title else event
        case _:
            return event


def tries(attempt: int | None, of: int | None) -> str:
    if attempt is None:
        return ""
    return f" {attempt}" if of is None else f" {attempt}/{of}"


def _doing(row: Row, what: str, event: Event) -> Row:
    """The row with this as what is done now; itself if that is nothing new."""
    return row if row.doing == what else replace(row, doing=what, since=event.time)


def _started(row: Row, event: Event, run: RunStarted) -> Row:
    return replace(
        row,
        agent=event.agent or run.adapter,
        model=run.model or row.model,
        runs=(*row.runs, event.run_id) if event.run_id else row.runs,
        tier=run.tier or "cloud",
        calls={},
        outcome=None,
    )


def _called(row: Row, call: ToolCall, event: Event) -> Row:
    calls = dict(row.calls)
    match call.status:
        case "completed" | "failed":
            calls.pop(call.id, None)
        case None if call.id not in calls:  # a late word on a call that is over
            pass
        case _:
            calls[call.id] = one_line(call.title or calls.get(call.id) or call.kind or "a tool")
    doing = next(reversed(calls.values()), THINKING)
    return _doing(row if calls == row.calls else replace(row, calls=calls), doing, event)


def _run_ended(row: Row, outcome: Outcome, event: Event) -> Row:
    """A task that was announced may have another run; one that was not ends with its run."""
    if row.announced:
        return _doing(row, f"the run ended: {outcome.status}", event)
    return _ended(row, outcome, event)


def _ended(row: Row, outcome: Outcome, event: Event) -> Row:
    return replace(
        row,
        outcome=outcome,
        ended=event.time,
        agent=outcome.agent or row.agent,
        model=outcome.model or row.model,
        doing=outcome.status,
        since=event.time,
        calls={},
    )
