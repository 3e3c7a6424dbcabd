"""The story of a run or a job from its events: what was asked, what was done step by step, what
changed, how it ended and why. Made line by line, so that it can be read while it is made. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

import orjson

from orchestrator.console.paint import Line, Span, Style, style_of
from orchestrator.console.state import tries
from orchestrator.console.summary import summary_lines
from orchestrator.console.text import between, cells, clock, one_line, safe
from orchestrator.errors import counted, shown
from orchestrator.events import (
    Changes,
    Check,
    Error,
    Event,
    JobFinished,
    Limit,
    Message,
    Notice,
    Outcome,
    Output,
    Permission,
    Plan,
    ProcessExited,
    ProcessReaped,
    RateLimit,
    Retry,
    RouteEscalated,
    RouteSelected,
    RouteVerified,
    RunFinished,
    RunStarted,
    SessionStarted,
    Stall,
    Subagent,
    TaskFinished,
    TaskStarted,
    Thought,
    ToolCall,
    TurnFinished,
    Unparsed,
    Usage,
    WorkspaceChanged,
)

_WHEN, _WHAT = 7, 9
_INDENT = " " * (_WHEN + 2 + _WHAT + 1)
_TAIL = 15  # lines of a check's output
_SAID = 12  # lines of a message
_ALIKE = 3  # lines of noise in a row
_FILE = re.compile(r"^diff --git a/.* b/(.*)$")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What stands on record beside the events."""

    run_id: str
    started: str
    prompt: str
    workspace: str
    resumed: str | None = None
    running: bool = False


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A line of the story before it is laid out, and what stands below it."""

    what: str
    text: str
    style: Style = "plain"
    below: tuple[str, ...] = ()
    noise: bool = False


@dataclass(kw_only=True)
class _Teller:
    """What has to be kept while the story is told: calls that are open, and what it amounts to."""

    full: bool
    calls: dict[str, tuple[str, ToolCall]] = field(default_factory=dict[str, tuple[str, ToolCall]])
    over: set[str] = field(default_factory=set[str])
    outcome: Outcome | None = None
    check: Check | None = None


def story(asked: Asked, events: Iterable[Event], *, full: bool = False) -> Iterator[Line]:
    """All of it. `full`: nothing shortened and nothing left out."""
    yield from _asked(asked)
    teller = _Teller(full=full)
    yield from _course(events, teller)
    yield from _left_open(teller)
    yield from _end(teller, asked)


def course(events: Iterable[Event]) -> Iterator[Line]:
    """The steps alone: of a job, which has no prompt and ends in a table."""
    yield from _course(events, _Teller(full=False))


def _course(events: Iterable[Event], teller: _Teller) -> Iterator[Line]:
    start: str | None = None

    def timed() -> Iterator[tuple[str, str, _Step]]:
        nonlocal start
        for event in events:
            start = start or event.time
            if (step := _step(event, teller)) is not None:
                name = event.task_id if event.run_id is None and event.task_id else ""
                yield clock(between(start, event.time) or 0.0), name, step

    for noise, steps in groupby(timed(), key=lambda one: one[2].noise and one[2].what):
        yield from _laid(steps, limit=_ALIKE if noise and not teller.full else None)


def _asked(asked: Asked) -> Iterator[Line]:
    yield (Span("run        ", "dim"), Span(shown(asked.run_id), "bold"))
    yield (Span("started    ", "dim"), Span(shown(asked.started)))
    if asked.resumed:
        yield (Span("resumes    ", "dim"), Span(shown(asked.resumed)))
    yield (Span("workspace  ", "dim"), Span(shown(asked.workspace)))
    for number, line in enumerate(safe(asked.prompt.strip()).split("\n")):
        yield (
            Span("" if number else "asked      ", "dim"),
            Span(f"{' ' * 11 * bool(number)}{line}"),
        )
    yield ()


def _laid(steps: Iterable[tuple[str, str, _Step]], *, limit: int | None) -> Iterator[Line]:
    more = 0
    for number, (when, name, step) in enumerate(steps):
        if limit is not None and number >= limit:
            more += 1
            continue
        what = f"{' ' * (_WHEN - cells(when))}{when}  {step.what:<{_WHAT}} "
        task = f"{shown(name)}: " if name else ""
        yield (Span(what, "dim"), Span(f"{task}{step.text}", step.style))
        for line in step.below:
            yield (Span(_INDENT), Span(line, "dim"))
    if more:
        yield (Span(f"{_INDENT}... {more} more like this (--full shows them)", "dim"),)


# --- step by step --------------------------------------------------------------------------------


def _step(event: Event, teller: _Teller) -> _Step | None:
    """What the event adds to the story, if anything."""
    full = teller.full
    match event.update:
        case RunStarted():
            return _Step(what="run", text=_who(event, event.update), style="bold")
        case RouteSelected(reason=reason, considered=considered):
            others = tuple(
                f"not {shown(one.agent)}: {_brief(one.reason, full=full)}"
                for one in considered
                if not one.chosen
            )
            return _Step(
                what="chosen",
                text=f"{shown(event.agent or 'none')} ({shown(reason)})",
                below=others,
            )
        case SessionStarted(session_id=session_id):
            return _Step(what="session", text=shown(session_id), style="dim")
        case Message(role=role, text=text) if text.strip():
            return _spoken("says" if role == "assistant" else "is told", text, full=full)
        case Thought(text=text) if text.strip():
            return _thought(text, full=full)
        case ToolCall():
            return _called(event, event.update, teller)
        case Notice(text=text):
            return _Step(what="note", text=_brief(text, full=full))
        case Permission(status=status, tool=tool, reason=reason):
            told = ": ".join(shown(part) for part in (tool, reason) if part) or shown(
                event.update.id
            )
            return _Step(what=status, text=told, style="bad" if status == "denied" else "plain")
        case Retry(reason=reason, attempt=attempt, of=of):
            return _Step(
                what="retry", text=f"{tries(attempt, of)} {shown(reason)}".strip(), style="doubtful"
            )
        case RateLimit(status=status, resets_at=resets_at):
            until = f", until {shown(resets_at)}" if resets_at else ""
            return _Step(
                what="limits", text=f"{shown(status)}{until}", style="doubtful", noise=True
            )
        case Error(kind=kind, text=text):
            return _Step(what="error", text=f"{kind}: {_brief(text, full=full)}", style="bad")
        case Plan(entries=entries):
            marks = {"completed": "[x]", "in_progress": "[>]", "pending": "[ ]"}
            below = tuple(f"{marks[one.status]} {one_line(one.text)}" for one in entries)
            return _Step(what="plan", text=counted(len(entries), "step", ","), below=below)
        case Subagent(status=status, child_agent=agent, child_run_id=run):
            told = " ".join(shown(part) for part in (agent, run) if part)
            return _Step(what="subagent", text=f"{status} {told}".strip())
        case Output(stream=stream, text=text) if text.strip():
            return _Step(what=shown(stream), text=_brief(text, full=full), style="dim", noise=True)
        case Unparsed(reason=reason, text=text):
            told = f"not understood ({shown(reason)}): {_brief(text, full=full)}"
            return _Step(what="line", text=told, style="dim", noise=True)
        case _:
            return _supervised(event, teller)


def _supervised(event: Event, teller: _Teller) -> _Step | None:
    """The supervisor's own steps."""
    match event.update:
        case RouteVerified(method=method, model=model, server=server):
            served = " ".join(shown(part) for part in (model, server) if part)
            how = "the agent's own word" if method == "claimed" else f"verified: {method}"
            return _Step(what="served by", text=f"{served} ({how})")
        case RouteEscalated(from_agent=one, to_agent=other, why=why):
            text = f"from {shown(one)} to {shown(other)}: {shown(why)}"
            return _Step(what="moves on", text=text, style="doubtful")
        case Stall(seconds=seconds, action=action):
            text = f"no sign of life for {seconds:g} s: {shown(action)}"
            return _Step(what="stalled", text=text, style="bad")
        case Limit(limit=limit, value=value):
            return _Step(what="limit", text=f"{shown(limit)} ({value:,.10g})", style="bad")
        case ProcessExited(status=status, signal=signal):
            text = f"exit {status}" if signal is None else f"signal {signal}"
            return _Step(what="ended", text=text)
        case ProcessReaped(survivors=survivors, kept=kept, processes=processes) if (
            survivors or kept
        ):
            text = f"{survivors} process(es) were ended" + (f", {kept} left" if kept else "")
            below = tuple(f"{one.pid} {one.fate}: {shown(one.command)}" for one in processes)
            return _Step(what="left over", text=text, below=below, style="doubtful")
        case WorkspaceChanged(changes=changes):
            below = tuple(changed_files(changes))
            files = counted(len(changes.files), "file", ",")
            text = f"{files} (+{changes.insertions} -{changes.deletions})"
            return _Step(what="changed", text=text if changes.files else "nothing", below=below)
        case Check():
            return _checked(event.update, teller)
        case TaskStarted(id=id_, needs=needs):
            after = f" after {shown(', '.join(needs))}" if needs else ""
            return _Step(what="task", text=f"{shown(id_)} begins{after}")
        case RunFinished(outcome=outcome) | JobFinished(outcome=outcome):
            teller.outcome = outcome
            return None
        case TaskFinished(outcome=outcome):
            teller.outcome = outcome
            return _Step(what="task", text=f"ended: {outcome.status}", style=style_of(outcome))
        case TurnFinished(stop_reason=reason) if teller.full or reason != "end_turn":
            return _Step(what="turn", text=f"ended: {reason}")
        case Usage() if teller.full:
            return _Step(what="usage", text=repr(event.update), style="dim")
        case _:
            return None


def _who(event: Event, run: RunStarted) -> str:
    place = ", ".join(shown(part) for part in (run.tier, run.server, run.auth) if part)
    version = f", {shown(run.adapter)} {shown(run.cli_version)}" if run.cli_version else ""
    model = shown(run.model or "its own default model")
    return f"{shown(event.agent or run.adapter)}: {model}{f' ({place})' if place else ''}{version}"


def _brief(text: str, *, full: bool) -> str:
    return shown(text) if full else one_line(text, 300)


def _spoken(what: str, text: str, *, full: bool) -> _Step:
    first, *rest = safe(text.strip()).split("\n")
    return _Step(what=what, text=first, below=_shortened(rest, _SAID - 1, full=full))


def _thought(text: str, *, full: bool) -> _Step:
    if not full:
        return _Step(what="thinks", text=one_line(text), style="dim")
    return replace(_spoken("thinks", text, full=True), style="dim")


def _shortened(lines: list[str], most: int, *, full: bool) -> tuple[str, ...]:
    if full or len(lines) <= most:
        return tuple(lines)
    return (*lines[:most], f"... {len(lines) - most} more lines")


def _called(event: Event, call: ToolCall, teller: _Teller) -> _Step | None:
    """A call is told when it is over, with how long it took."""
    if call.id in teller.over:
        return None
    began, known = teller.calls.get(call.id, (event.time, call))
    stated = {name: value for name, value in vars(call).items() if value is not None}
    merged = replace(known, **stated)
    if merged.status not in {"completed", "failed"}:
        teller.calls[call.id] = (began, merged)
        return None
    known_before = teller.calls.pop(call.id, None) is not None
    teller.over.add(call.id)
    took = between(began, event.time) if known_before else None
    return _call_told(merged, took, full=teller.full)


def _call_told(call: ToolCall, took: float | None, *, full: bool) -> _Step:
    facts = [
        "failed" if call.status == "failed" else "",
        "" if call.exit_code is None else f"exit {call.exit_code}",
        "" if took is None else clock(took, tenths=True),
    ]
    told = ", ".join(filter(None, facts))
    title = shown(call.title or call.id) if full else one_line(call.title or call.id)
    bad = call.status == "failed" or call.exit_code not in {None, 0}
    return _Step(
        what=call.kind or "tool",
        text=f"{title}  ({told})" if told else title,
        style="doubtful" if bad else "plain",
        below=_result(call, full=full, most=6 if bad else 2),
    )


def _result(call: ToolCall, *, full: bool, most: int) -> tuple[str, ...]:
    lines = [shown(line) for line in (call.output or "").strip().split("\n") if line.strip()]
    if not full:
        if call.kind not in {"execute", None} and call.status != "failed":
            return ()
        return tuple(
            line if len(line) <= 200 else f"{line[:197]}..." for line in _last(lines, most)
        )
    given = [] if call.input is None else [shown(orjson.dumps(call.input).decode())]
    diff = [shown(line) for line in (call.diff or "").split("\n") if line]
    return (*given, *lines, *diff)


def _last(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [f"... {counted(len(lines) - most, 'line', ',')} before", *lines[-most:]]


def _checked(check: Check, teller: _Teller) -> _Step:
    teller.check = check
    ended = "did not end" if check.exit is None else f"exit {check.exit}"
    verdict: Style = "good" if check.passed else "bad"
    lines = [shown(line) for line in (check.output or "").rstrip().split("\n") if line.strip()]
    return _Step(
        what="check",
        text=f"{'passed' if check.passed else 'FAILED'} ({ended}): {shown(check.command)}",
        style=verdict,
        below=tuple(lines if teller.full else _last(lines, 2 if check.passed else _TAIL)),
    )


def _left_open(teller: _Teller) -> Iterator[Line]:
    for _, call in teller.calls.values():
        text = f"{one_line(call.title or call.id)}  (never ended)"
        yield (
            Span(f"{'':>{_WHEN}}  {call.kind or 'tool':<{_WHAT}} ", "dim"),
            Span(text, "doubtful"),
        )


# --- what changed --------------------------------------------------------------------------------


def changed_files(changes: Changes) -> list[str]:
    """Each file with the lines added and removed, as far as the diff tells."""
    counts = per_file(changes.diff or "")
    width = max((cells(shown(name)) for name in changes.files), default=0)
    told: list[str] = []
    for name in changes.files:
        plus, minus = counts.get(name, (None, None))
        lines = "" if plus is None or changes.truncated else f"  +{plus} -{minus}"
        told.append(f"{shown(name)}{' ' * (width - cells(shown(name)))}{lines}".rstrip())
    return told


def per_file(diff: str) -> dict[str, tuple[int, int]]:
    """Lines added and removed by file, from a unified diff as git writes it."""
    counts: dict[str, tuple[int, int]] = {}
    name, inside = "", False
    for line in diff.split("\n"):
        if found := _FILE.match(line):
            name, inside = found[1], False
            counts[name] = (0, 0)
        elif line.startswith("@@"):
            inside = True
        elif inside and name and line[:1] in {"+", "-"}:
            plus, minus = counts[name]
            counts[name] = (plus + 1, minus) if line[0] == "+" else (plus, minus + 1)
    return counts


# --- the end -------------------------------------------------------------------------------------


def _end(teller: _Teller, asked: Asked) -> Iterator[Line]:
    yield ()
    if teller.outcome is None:
        if asked.running:
            yield (
                Span("It is still running.", "bold"),
                Span(f"  orchestrate runs tail {shown(asked.run_id[-8:])}"),
            )
        else:
            text = "The record ends here: orchestrate was stopped before the run was over."
            yield (Span(text, "bad"),)
        return
    if teller.outcome.evidence:
        yield (Span("why", "dim"),)
        for fact in teller.outcome.evidence:
            yield (Span(f"  - {one_line(fact, 1_000 if teller.full else 300)}"),)
        yield ()
    yield from summary_lines(teller.outcome, workspace=asked.workspace, told=True)
