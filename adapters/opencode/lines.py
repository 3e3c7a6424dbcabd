"""What `opencode run --format json` says, line by line: the fallback to ACP. Seen with 1.18.33.

There is neither a first nor a last line of its own kind: it is done when the last step_finish says
"stop". A rejected permission ends it with status 0 and "tool-calls". Retries are silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from adapters.reading import complaint, fields, items, text, whole
from orchestrator.adapter import Exit, Monologue, Send, json_line, unparsed
from orchestrator.events import (
    Error,
    ErrorKind,
    Location,
    Message,
    Permission,
    Plan,
    PlanEntry,
    PlanStatus,
    SessionStarted,
    StopReason,
    Thought,
    ToolCall,
    ToolCallStatus,
    ToolKind,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.model_errors import error_kind

_ENDS: Mapping[str, StopReason] = MappingProxyType(
    {"stop": "end_turn", "length": "max_tokens", "content-filter": "refusal"}
)
_KINDS: Mapping[str, ToolKind] = MappingProxyType(
    {
        "apply_patch": "edit",
        "bash": "execute",
        "codesearch": "search",
        "edit": "edit",
        "glob": "search",
        "grep": "search",
        "list": "read",
        "multiedit": "edit",
        "patch": "edit",
        "read": "read",
        "task": "think",
        "todowrite": "think",
        "webfetch": "fetch",
        "websearch": "fetch",
        "write": "edit",
    }
)
_ERRORS: Mapping[str, ErrorKind] = MappingProxyType(
    {
        "ContentFilterError": "refused",
        "ContextOverflowError": "context_overflow",
        "MessageAbortedError": "interrupted",
        "ProviderAuthError": "auth_failed",
    }
)
_PLANNED: Mapping[str, PlanStatus] = MappingProxyType(
    {"pending": "pending", "in_progress": "in_progress"}
)
_REJECTED = ("rejected permission", "rule which prevents")


@dataclass(kw_only=True)
class OpencodeLines(Monologue):
    """One run. `note` is what is said of the access first; `billed`: its costs are real."""

    billed: bool
    _session: str | None = None
    _denied: str | None = None
    _ended: bool = False
    _failed: bool = False

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        """What a line means; one that is not known stays as it is."""
        event = json_line(line) or {}
        return [*self._begun(event), *self._said(event)] or [unparsed(line)]

    def _begun(self, event: Mapping[str, object]) -> Iterator[Update]:
        """The session, once: each line names it."""
        session = text(event.get("sessionID"))
        if session is not None and self._session is None:
            self._session = session
            yield SessionStarted(session_id=session)

    def _said(self, event: Mapping[str, object]) -> Iterator[Update]:
        part = fields(event.get("part"))
        match event.get("type"):
            case "step_start":
                # What ended or failed before is not the last word.
                self._ended = self._failed = False
                self._denied = None
                yield TurnStarted()
            case "text" if isinstance(said := part.get("text"), str):
                yield Message(text=said, id=text(part.get("id")))
            case "reasoning" if isinstance(said := part.get("text"), str):
                yield Thought(text=said, id=text(part.get("id")))
            case "tool_use" if (id_ := text(part.get("callID"))) is not None:
                yield from self._used(id_, part)
            case "step_finish" if part:
                yield from self._finished(part)
            case "error":
                self._failed = True
                yield _error(fields(event.get("error")))
            case _:
                pass

    def _used(self, id_: str, part: Mapping[str, object]) -> Iterator[Update]:
        """A tool that has ended; before that no line tells of it."""
        state = fields(part.get("state"))
        tool = text(part.get("tool")) or "tool"
        yield _call(id_, tool, state)
        why = text(state.get("error")) or ""
        if any(words in why for words in _REJECTED):
            self._denied = tool
            yield Permission(id=id_, status="denied", tool=tool, reason=why)
        if tool == "todowrite":
            yield from _plan(fields(state.get("input")))

    def _finished(self, part: Mapping[str, object]) -> Iterator[Update]:
        yield _usage(part, billed=self.billed)
        reason = _ENDS.get(text(part.get("reason")) or "")
        if reason is not None:  # else the next step follows, or nothing does
            self._ended = True
            yield TurnFinished(stop_reason=reason)

    def close(self, exit: Exit) -> Iterator[Update]:
        """The reason where the lines gave none: a denial, words on stderr, an end in the middle."""
        if not (self._ended or self._failed or exit.signal is not None):
            yield self._last_word(exit)
            yield TurnFinished(stop_reason="error")

    def _last_word(self, exit: Exit) -> Error:
        if self._denied is not None and exit.status == 0:
            return Error(kind="denied", text=f"opencode ended when it was denied: {self._denied}")
        words = complaint(exit.stderr)
        if words is None or exit.status == 0:
            ended = f"opencode ended (exit {exit.status}) before it said that it was done"
            return Error(kind="incomplete", text=ended)
        kind = error_kind(exit.stderr)
        unknown: ErrorKind = "incomplete" if self._session else "bad_usage"
        return Error(kind=unknown if kind == "unknown" else kind, text=words)


def _call(id_: str, tool: str, state: Mapping[str, object]) -> ToolCall:
    metadata, given = fields(state.get("metadata")), fields(state.get("input"))
    status = whole(metadata.get("exit"))
    edited = text(fields(metadata.get("filediff")).get("file")) or text(given.get("filePath"))
    return ToolCall(
        id=id_,
        title=text(state.get("title")) or tool,
        kind=_KINDS.get(tool, "other"),
        status=_status(tool, status, state),
        input=state.get("input"),
        output=text(state.get("output")) or text(state.get("error")),
        exit_code=status,
        diff=text(metadata.get("diff")),
        locations=None if edited is None else [Location(path=edited)],
    )


def _status(tool: str, exit_code: int | None, state: Mapping[str, object]) -> ToolCallStatus:
    """An unknown tool is the tool `invalid`, which completes; so does a command that failed."""
    done = state.get("status") == "completed" and tool != "invalid" and not exit_code
    return "completed" if done else "failed"


def _plan(given: Mapping[str, object]) -> Iterator[Update]:
    steps = [fields(one) for one in items(given.get("todos"))]
    entries = [
        PlanEntry(
            text=text(step.get("content")) or "",
            status=_PLANNED.get(text(step.get("status")) or "", "completed"),
        )
        for step in steps
    ]
    if entries:
        yield Plan(entries=entries)


def _usage(part: Mapping[str, object], *, billed: bool) -> Usage:
    """Tokens of one step. The cost is 0 for every model whose price it does not know."""
    tokens = fields(part.get("tokens"))
    cache = fields(tokens.get("cache"))
    thought, answered = whole(tokens.get("reasoning")), whole(tokens.get("output"))
    cost = part.get("cost")
    known = cost if billed and isinstance(cost, float) and cost > 0 else None
    return Usage(
        input_tokens=whole(tokens.get("input")),
        output_tokens=None if answered is None else answered + (thought or 0),
        cache_read_tokens=whole(cache.get("read")),
        cache_write_tokens=whole(cache.get("write")),
        reasoning_tokens=thought,
        cost_usd=known,
        cost_source=None if known is None else "agent",
    )


def _error(error: Mapping[str, object]) -> Error:
    known = fields(error.get("data"))
    name = text(error.get("name"))
    said = text(known.get("message")) or text(error.get("message")) or name or "an error"
    kind = _ERRORS.get(name or "") or error_kind(said, whole(known.get("statusCode")))
    retryable = known.get("isRetryable")
    return Error(kind=kind, text=said, retryable=retryable if isinstance(retryable, bool) else None)
