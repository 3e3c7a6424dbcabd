"""What claude's words about an end mean: a `result`, or what it leaves on stderr. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapters.reading import first_line, items, text, whole
from orchestrator.adapter import Exit
from orchestrator.events import Error, ErrorKind, TurnFinished, Update
from orchestrator.model_errors import error_kind

_RETRYABLE: frozenset[ErrorKind] = frozenset({"unavailable", "server_error", "rate_limited"})
_ENDED_BY_SIGNAL = frozenset({129, 130, 143})
_LOGIN_HINT = "Log in with `claude` and /login, or name a key's variable with --api-key-env."
_NO_SANDBOX = "Sandbox required but unavailable"
_ANSWER_TOO_LONG = "output token maximum"


def result_end(event: Mapping[str, object], *, acted: bool) -> Iterator[Update] | None:
    """How a turn ended by its `result`; None: of a kind that is not known.

    `subtype` decides nothing by itself: an API's failure is a `success` with `is_error`.
    """
    match event:
        case {"subtype": "success", "is_error": False}:
            return _completed(event, acted=acted)
        case {"subtype": "error_max_turns"}:
            return iter((TurnFinished(stop_reason="max_turn_requests"),))
        case {"subtype": "error_max_budget_usd"}:
            text_ = _why(event) or "claude spent its budget before it was done"
            return _failed(Error(kind="budget_exceeded", text=text_, retryable=False))
        case {"subtype": str(), "terminal_reason": str(reason)} if reason.startswith("aborted"):
            return iter((TurnFinished(stop_reason="cancelled"),))
        case {"subtype": "success" | "error_during_execution"}:
            return _api_failure(event)
        case {"subtype": str(subtype)} if subtype.startswith("error"):
            return _failed(Error(kind="unknown", text=_why(event) or subtype))
        case _:
            return None


def _completed(event: Mapping[str, object], *, acted: bool) -> Iterator[Update]:
    reason = event.get("terminal_reason", "completed")
    stop = event.get("stop_reason")
    answered = bool(text(event.get("result")) or event.get("structured_output"))
    if reason != "completed":
        yield Error(kind="incomplete", text=f"claude ended its turn early: {reason}")
        yield TurnFinished(stop_reason="error")
    elif stop == "max_tokens":
        yield TurnFinished(stop_reason="max_tokens")
    elif stop == "refusal":
        yield TurnFinished(stop_reason="refusal")
    elif answered or acted:
        yield TurnFinished(stop_reason="end_turn")
    else:
        why = "the model stopped after thinking, or said nothing"
        yield Error(kind="incomplete", text=f"claude ended its turn without an answer: {why}")
        yield TurnFinished(stop_reason="error")


def _api_failure(event: Mapping[str, object]) -> Iterator[Update]:
    said = _why(event) or "claude says that its turn failed"
    status = whole(event.get("api_error_status"))
    if event.get("terminal_reason") == "prompt_too_long":
        kind: ErrorKind = "context_overflow"
    elif event.get("stop_reason") == "refusal":
        kind = "refused"
    elif _ANSWER_TOO_LONG in said:
        yield Error(kind="incomplete", text=said, retryable=False)
        yield TurnFinished(stop_reason="max_tokens")
        return
    else:
        kind = _kind(said, status)
    hint = _LOGIN_HINT if "/login" in said and status is None else None
    yield from _failed(Error(kind=kind, text=said, retryable=kind in _RETRYABLE, hint=hint))


def _kind(said: str, status: int | None) -> ErrorKind:
    if "/login" in said:
        return "auth_failed"
    if "No conversation found" in said or _NO_SANDBOX in said:
        return "bad_usage"
    if "malformed response" in said:
        return "unavailable"  # a web page, say: a proxy answers, or another server
    return error_kind(said, status)


def _failed(error: Error) -> Iterator[Update]:
    yield error
    yield TurnFinished(stop_reason="refusal" if error.kind == "refused" else "error")


def _why(event: Mapping[str, object]) -> str | None:
    errors = [said for said in items(event.get("errors")) if isinstance(said, str)]
    return text(event.get("result")) or text("\n".join(errors))


def without_result(exit: Exit, *, begun: bool, interrupted: bool) -> Iterator[Update]:
    """Why it ended, where no `result` says so."""
    if interrupted or exit.status in _ENDED_BY_SIGNAL:
        yield TurnFinished(stop_reason="cancelled")
    elif begun:
        ended = f"claude ended (exit {exit.status}) before its turn was over"
        yield Error(kind="incomplete", text=ended)
    else:
        yield _never_began(exit)


# What claude says on stderr when it ends before it began: wording, kind, remedy.
_NEVER_BEGAN: tuple[tuple[str, ErrorKind, str | None], ...] = (
    (
        "native binary not installed",
        "spawn",
        "Its platform's package is missing: `orchestrate agents install claude`.",
    ),
    ("root/sudo", "bad_usage", "Leave out bypassPermissions, or do not run as root."),
    ("bubblewrap is required", "bad_usage", None),
    ("unknown option", "bad_usage", "Is this a claude of another version? See `claude --help`."),
    ("--json-schema", "bad_usage", "See the agent's option `schema`."),
    ("MCP config", "bad_usage", "See the agent's option `mcp`."),
)


def _never_began(exit: Exit) -> Error:
    lines = [line for line in exit.stderr.splitlines() if line.strip() and not _noise(line)]
    if not lines:
        text_ = f"claude ended (exit {exit.status}) and said nothing"
        return Error(kind="incomplete", text=text_)
    said = "\n".join(lines)
    for wording, kind, hint in _NEVER_BEGAN:
        if wording in said:
            return Error(kind=kind, text=first_line(said), retryable=False, hint=hint)
    kind = error_kind(said)
    if kind == "unknown" and said.lower().startswith("error"):
        kind = "bad_usage"
    return Error(kind=kind, text=first_line(said), retryable=kind in _RETRYABLE)


def _noise(line: str) -> bool:
    return line.startswith(("[claude-code:", "Warning:"))
