"""Events and outcomes as text for a person. Pure: only `cli` prints.

Nothing that an agent or a model said reaches the terminal unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.errors import HOSTILE, shown
from orchestrator.events import (
    Check,
    Error,
    Event,
    Limit,
    Message,
    Notice,
    Outcome,
    Output,
    Permission,
    ProcessExited,
    ProcessReaped,
    Retry,
    RouteSelected,
    RunFinished,
    RunStarted,
    SessionStarted,
    Stall,
    TaskFinished,
    Thought,
    ToolCall,
    Unparsed,
    Usage,
    WorkspaceChanged,
)

_HOSTILE = re.compile(f"[{HOSTILE}]")
_WIDTH = 100
_SMALLEST = 0.0001


def safe(text: str) -> str:
    r"""The text with everything that could steer a terminal escaped, as `\x1b`."""
    return _HOSTILE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str, width: int = _WIDTH) -> str:
    """The first line that says something, escaped and cut to `width`."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    line = shown(first.strip())
    return line if len(line) <= width else f"{line[: width - 3]}..."


def told(event: Event) -> str | None:
    """One line (or a few) for an event that a person wants to see as it happens; None for the
    others.
    """
    match event.update:
        case RunStarted():
            return _started(event, event.update)
        case Notice(text=text):
            return f"  note: {one_line(text, 200)}"
        case Message(role="assistant", text=text) if text.strip():
            return "\n".join(f"  {line}" for line in safe(text.strip()).splitlines())
        case ToolCall():
            return _tool_call(event.update)
        case Permission(status="denied", tool=tool, reason=reason):
            return f"  denied: {one_line(tool or reason or event.update.id)}"
        case Retry(reason=reason, attempt=attempt, of=of):
            count = f" {attempt}/{of}" if attempt is not None and of is not None else ""
            return f"  retry{count}: {one_line(reason)}"
        case Error(kind=kind, text=text):
            return f"  error ({kind}): {one_line(text, 300)}"
        case Stall(seconds=seconds):
            return f"  stalled: no sign of life for {seconds:g} s"
        case Limit(limit=limit, value=value):
            return f"  limit reached: {shown(limit)} ({value:,.10g})"
        case ProcessReaped(survivors=survivors) if survivors:
            return f"  {survivors} process(es) that the agent left behind were ended"
        case Check(command=command, passed=passed):
            return f"  check {'passed' if passed else 'FAILED'}: {one_line(command)}"
        case _:
            return None


def _started(event: Event, run: RunStarted) -> str:
    place = " ".join(part for part in (run.tier, run.server) if part)
    model = run.model or "its own default model"
    where = f" ({place})" if place else ""
    return shown(f"{event.agent or run.adapter}: {model}{where}, run {event.run_id}")


def _tool_call(call: ToolCall) -> str | None:
    match call.status:
        case "in_progress" | "pending" if call.title:
            return f"  > {one_line(call.title)}"
        case "failed":
            code = "" if call.exit_code is None else f" (exit {call.exit_code})"
            what = call.title or call.output or call.id
            return f"  failed{code}: {one_line(what)}"
        case _:
            return None


def summary(outcome: Outcome, *, workspace: str | None = None) -> str:
    """How a run ended, for a person: status, cause, remedy, work, tokens, cost, time, where to
    look.
    """
    passed = ", verified by the check" if outcome.ok else ", though the check passed"
    verified = {True: passed, False: ", the check failed", None: ""}
    rows = [("outcome", f"{outcome.status}{verified[outcome.verified]}")]
    if outcome.error is not None:
        rows.append(("cause", one_line(outcome.error.text, 400)))
        if outcome.error.hint:
            rows.append(("remedy", one_line(outcome.error.hint, 400)))
    if outcome.agent:
        rows.append(("agent", f"{outcome.agent} ({outcome.model or 'its own default model'})"))
    rows.append(("changes", _changes(outcome)))
    rows.append(("tokens", _tokens(outcome.usage)))
    rows.append(("cost", _cost(outcome.usage)))
    if outcome.duration_s is not None:
        rows.append(("time", f"{outcome.duration_s:.1f} s"))
    if outcome.changes is not None and outcome.changes.branch is not None:
        rows.append(("branch", outcome.changes.branch))
        run = (outcome.run_id or "last")[-8:]
        rows.append(("next", f"orchestrate runs diff {run}, then git merge the branch"))
    if workspace:
        rows.append(("workspace", workspace))
    if outcome.run_id:
        rows.append(("run", outcome.run_id))
    return "\n".join(f"{name:<10} {shown(text)}" for name, text in rows)


def _changes(outcome: Outcome) -> str:
    match outcome.changes:
        case None:
            return "unknown"
        case changes if not changes.files:
            return "none"
        case changes:
            names = ", ".join(changes.files[:5])
            more = f" and {len(changes.files) - 5} more" if len(changes.files) > 5 else ""
            return f"{names}{more} (+{changes.insertions} -{changes.deletions})"


def _tokens(usage: Usage | None) -> str:
    if usage is None:
        return "unknown"
    parts = (
        (usage.input_tokens, "in"),
        (usage.cache_read_tokens, "cached"),
        (usage.output_tokens, "out"),
    )
    return ", ".join(f"{count:,} {name}" for count, name in parts if count is not None) or "unknown"


def _cost(usage: Usage | None) -> str:
    if usage is None or usage.cost_usd is None:
        return "unknown"
    source = f" ({usage.cost_source})" if usage.cost_source else ""
    if 0 < usage.cost_usd < _SMALLEST:
        return f"below ${_SMALLEST}{source}"  # never shown as 0
    return f"${usage.cost_usd:.4f}{source}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts in columns, each row on one line; the first row is the head."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def step(event: Event) -> str | None:
    """One step of a run's story, told afterwards: more than `told`, still not every line."""
    match event.update:
        case RouteSelected(reason=reason, considered=considered):
            others = [f"; not {one.agent}: {one.reason}" for one in considered if not one.chosen]
            return shown(f"chosen: {event.agent or 'none'} ({reason}){''.join(others)}")
        case SessionStarted(session_id=session_id):
            return f"session {shown(session_id)}"
        case Thought(text=text):
            return f"  thinks: {one_line(text)}"
        case ToolCall(status="completed", title=title, output=output, exit_code=exit_code):
            code = "" if exit_code is None else f" (exit {exit_code})"
            return f"  done{code}: {one_line(title or output or event.update.id)}"
        case Output(stream="stderr", text=text) if text.strip():
            return f"  stderr: {one_line(text)}"
        case Unparsed(reason=reason, text=text):
            return f"  not understood ({one_line(reason)}): {one_line(text)}"
        case WorkspaceChanged(changes=changes):
            return f"  changed: {shown(', '.join(changes.files)) or 'nothing'}"
        case ProcessExited(status=status, signal=signal):
            return f"  ended: {f'exit {status}' if signal is None else f'signal {signal}'}"
        case RunFinished(outcome=outcome) | TaskFinished(outcome=outcome):
            evidence = "\n".join(f"  - {one_line(fact, 400)}" for fact in outcome.evidence)
            return f"evidence:\n{evidence}\n\n{summary(outcome)}"
        case _:
            return told(event)
