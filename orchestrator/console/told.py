"""An event as it happens, in a line for a person: what is worth seeing, escaped."""

from __future__ import annotations

from orchestrator.console.paint import Style
from orchestrator.console.state import tries
from orchestrator.console.text import one_line, safe
from orchestrator.errors import shown
from orchestrator.events import (
    Check,
    Error,
    Event,
    Limit,
    Message,
    Notice,
    Permission,
    ProcessReaped,
    Retry,
    RouteEscalated,
    RunStarted,
    Stall,
    TaskFinished,
    TaskStarted,
    ToolCall,
)


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
            why = f" ({one_line(reason)})" if tool and reason else ""
            return f"  denied: {one_line(tool or reason or event.update.id)}{why}"
        case Permission(status="granted", tool=tool) if event.source == "supervisor":
            return f"  allowed: {one_line(tool or event.update.id)}"
        case Retry(reason=reason, attempt=attempt, of=of):
            return f"  retry{tries(attempt, of)}: {one_line(reason)}"
        case Error(kind=kind, text=text):
            return f"  error ({kind}): {one_line(text, 300)}"
        case RouteEscalated(from_agent=one, to_agent=other, why=why, cost_usd=cost):
            price = "unknown" if cost is None else f"${cost:.2f}"
            to = f"{one_line(other)} (expected cost: {price})"
            return f"  moves on from {one_line(one)} to {to}: {one_line(why)}"
        case Stall(seconds=seconds, budget=budget):
            return f"  stalled: no sign of life for {seconds:g} s (limits.{shown(budget)})"
        case Limit(limit=limit, value=value, action="none"):
            return f"  limit passed at its very end: {shown(limit)} ({value:,.10g})"
        case Limit(limit=limit, value=value):
            return f"  limit reached: {shown(limit)} ({value:,.10g})"
        case ProcessReaped(kept=kept, processes=processes) if kept:
            pids = ", ".join(str(one.pid) for one in processes)
            return (
                f"  {kept} process(es) of the agent are left running (detached: keep): pid {pids}"
            )
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


def task_told(event: Event) -> str | None:
    """What is told besides where there are many tasks: that one begins, and how it ended."""
    match event.update:
        case TaskStarted():
            return "started"
        case TaskFinished(outcome=outcome):
            why = f": {one_line(outcome.error.text, 300)}" if outcome.error else ""
            return f"{outcome.status}{why}"
        case _:
            return None


def tone(event: Event) -> Style:
    """The style of what is told of the event."""
    match event.update:
        case RunStarted():
            return "bold"
        case Error() | Stall() | Limit() | Check(passed=False):
            return "bad"
        case (
            RouteEscalated() | Permission() | Retry() | ProcessReaped() | ToolCall(status="failed")
        ):
            return "doubtful"
        case Check(passed=True):
            return "good"
        case Notice() | ToolCall():
            return "dim"
        case _:
            return "plain"


def stays(event: Event) -> bool:
    """Whether it is told although many tasks run at once: a person will want to know."""
    match event.update:
        case Stall() | Limit() | Permission(status="denied") | RouteEscalated():
            return True  # an error or a failed check is told with how the task ended
        case ProcessReaped(survivors=survivors, kept=kept):
            return bool(survivors or kept)
        case _:
            return False
