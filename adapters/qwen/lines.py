"""What `qwen --output-format stream-json` says, line by line, where ACP fails. Seen with 0.24.4.

It exits 0 and says "success" of a request that failed: the error is the end of its text. Turns and
budgets that are used up are told by its exit status alone (53, 55).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from adapters.blocks import call_usage, delta, said, todos
from adapters.reading import complaint, fields, first_line, hold, items, text, whole
from orchestrator.adapter import TEXT_LIMIT, Exit, Monologue, Send, json_line, unparsed
from orchestrator.events import (
    Error,
    ErrorKind,
    Location,
    Message,
    MessageDelta,
    Permission,
    Plan,
    Retry,
    SessionStarted,
    Thought,
    ToolCall,
    ToolKind,
    TurnFinished,
    TurnStarted,
    Update,
)
from orchestrator.model_errors import error_kind

_KINDS: Mapping[str, ToolKind] = MappingProxyType(
    {
        "agent": "think",
        "edit": "edit",
        "glob": "search",
        "grep_search": "search",
        "list_directory": "read",
        "notebook_edit": "edit",
        "read_file": "read",
        "read_many_files": "read",
        "run_shell_command": "execute",
        "skill": "think",
        "todo_write": "think",
        "web_fetch": "fetch",
        "write_file": "edit",
    }
)
_FAILED = re.compile(r"\[API Error: ([^\n]*)\]\s*\Z")
_GONE = re.compile(
    r"other side closed|fetch failed|socket hang up|without a finish reason", re.IGNORECASE
)
_EXIT = re.compile(r"^Exit Code: (\d{1,3})$", re.MULTILINE)
_TITLES = ("command", "file_path", "absolute_path", "pattern", "url", "path")
_NOTHING_NEW = "known, and says nothing new"
_TURNS, _BUDGET, _INTERRUPTED = 53, 55, 130


@dataclass(kw_only=True)
class QwenLines(Monologue):
    """One run. `note` is what is said of the access first."""

    _begun: bool = False
    _ended: bool = False
    _failed: bool = False
    _message: str = ""
    _block: str = ":0"
    _denied: dict[str, None] = field(default_factory=dict[str, None])

    def feed(self, line: bytes) -> Iterable[Update | Send]:
        """What a line means; one that is not known stays as it is."""
        event = json_line(line) or {}
        said = list(self._heard(event))
        return said or [unparsed(line, _NOTHING_NEW) if _is_known(event) else unparsed(line)]

    def _heard(self, event: Mapping[str, object]) -> Iterator[Update]:
        message = fields(event.get("message"))
        match event.get("type"):
            case "stream_event":
                yield from self._streamed(fields(event.get("event")))
            case "assistant":
                yield from self._assistant(message)
            case "user":
                yield from self._results(items(message.get("content")))
            case "result":
                yield from self._result(event)
            case "system":
                yield from self._system(event)
            case _:
                pass

    def _system(self, event: Mapping[str, object]) -> Iterator[Update]:
        match event:
            case {"subtype": "init", "session_id": str(session)}:
                if not self._begun:
                    self._begun = True
                    tools = [tool for tool in items(event.get("tools")) if isinstance(tool, str)]
                    model = text(event.get("model"))
                    yield SessionStarted(session_id=session, model=model, tools=tools or None)
                yield TurnStarted()
            case {"subtype": "retry"}:
                yield Retry(reason="qwen asks the model again")
            case _:
                pass

    def _streamed(self, part: Mapping[str, object]) -> Iterator[Update]:
        match part.get("type"):
            case "message_start":
                self._at(text(fields(part.get("message")).get("id")) or "", 0)
            case "content_block_start":
                self._at(self._message, whole(part.get("index")) or 0)
            case "content_block_delta":
                yield delta(fields(part.get("delta")), self._block) or self._silence()
                return
            case "content_block_stop" | "message_stop" | "message_delta":
                pass
            case _:
                return
        yield self._silence()

    def _at(self, message: str, block: int) -> None:
        self._message, self._block = message, f"{message}:{block}"

    def _silence(self) -> Update:
        return MessageDelta(id=self._block, text="")

    def _assistant(self, message: Mapping[str, object]) -> Iterator[Update]:
        """A message, whole, with the tokens of its call."""
        id_ = text(message.get("id")) or ""
        for number, block in enumerate(map(fields, items(message.get("content")))):
            yield from self._block_of(f"{id_}:{number}", block)
        used = call_usage(message.get("usage"))
        if used is not None and used.input_tokens:
            # Cached ones are among those read; of several lines of a call the others say 0.
            fresh = max(0, used.input_tokens - (used.cache_read_tokens or 0))
            yield replace(used, input_tokens=fresh)

    def _block_of(self, id_: str, block: Mapping[str, object]) -> Iterator[Update]:
        match block.get("type"), block:
            case "text", {"text": str(words)}:
                yield Message(id=id_, text=words)
                if (failed := _FAILED.search(words)) is not None:
                    self._failed = True
                    yield _error(failed[1])
            case "thinking", {"thinking": str(words)}:
                yield Thought(id=id_, text=words)
            case "tool_use", {"id": str(call), "name": str(name)}:
                self._failed = False
                given = fields(block.get("input"))
                yield _call(call, name, given)
                if name == "todo_write" and (entries := todos(given.get("todos"))):
                    yield Plan(entries=entries)
            case _:
                pass

    def _results(self, blocks: Iterable[object]) -> Iterator[Update]:
        for block in map(fields, blocks):
            if block.get("type") == "tool_result" and (call := text(block.get("tool_use_id"))):
                output = said(block.get("content"))
                code = _EXIT.search(output)
                yield ToolCall(
                    id=call,
                    status="failed" if block.get("is_error") is True else "completed",
                    output=output[:TEXT_LIMIT],
                    exit_code=None if code is None else int(code[1]),
                )
                if "requires permission to use" in output:
                    yield from self._denial(call, None, first_line(output))

    def _denial(self, call: str, tool: str | None, why: str | None) -> Iterator[Update]:
        if call not in self._denied:
            hold(self._denied, call, None)
            yield Permission(id=call, status="denied", tool=tool, reason=why)

    def _result(self, event: Mapping[str, object]) -> Iterator[Update]:
        """Success is only what neither this line nor the text before it calls an error."""
        for one in map(fields, items(event.get("permission_denials"))):
            if call := text(one.get("tool_use_id")):
                yield from self._denial(call, text(one.get("tool_name")), None)
        self._ended = True
        if event.get("subtype") == "success" and event.get("is_error") is False:
            yield TurnFinished(stop_reason="error" if self._failed else "end_turn")
            return
        if not self._failed:
            told = text(fields(event.get("error")).get("message")) or text(event.get("result"))
            yield _error(told or str(event.get("subtype")))
        yield TurnFinished(stop_reason="error")

    def close(self, exit: Exit) -> Iterator[Update]:
        """The reason where no line gave one: its exit status, or words on stderr."""
        if exit.signal is not None:
            return
        if exit.status == _TURNS:
            yield TurnFinished(stop_reason="max_turn_requests")
        elif exit.status == _BUDGET:
            words = complaint(exit.stderr) or "its budget of time or of tool calls is used up"
            yield Error(kind="budget_exceeded", text=words, retryable=False)
            yield TurnFinished(stop_reason="error")
        elif exit.status == _INTERRUPTED:
            yield TurnFinished(stop_reason="cancelled")
        elif not self._ended:
            yield self._last_word(exit)
            yield TurnFinished(stop_reason="error")

    def _last_word(self, exit: Exit) -> Error:
        words = complaint(exit.stderr)
        if words is None or exit.status == 0:
            ended = f"qwen ended (exit {exit.status}) before it said that it was done"
            return Error(kind="incomplete", text=ended)
        kind = error_kind(exit.stderr)
        unknown: ErrorKind = "incomplete" if self._begun else "bad_usage"
        return Error(kind=unknown if kind == "unknown" else kind, text=words)


def _is_known(event: Mapping[str, object]) -> bool:
    """A line that says nothing of the work."""
    return fields(event.get("event")).get("type") == "goal_state"


def _call(id_: str, name: str, given: Mapping[str, object]) -> ToolCall:
    place = text(given.get("file_path")) or text(given.get("absolute_path"))
    titles = (text(given.get(key)) for key in _TITLES)
    said_ = next((title for title in titles if title), None)
    plain = name == "run_shell_command" and said_ is not None
    return ToolCall(
        id=id_,
        status="in_progress",
        kind=_KINDS.get(name, "other"),
        title=said_ if plain else f"{name} {said_}" if said_ else name,
        input=dict(given),
        locations=[Location(path=place)] if place else None,
    )


def _error(told: str) -> Error:
    kind = error_kind(told)
    if kind in {"unknown", "server_error"} and _GONE.search(told):
        kind = "unavailable"
    return Error(kind=kind, text=first_line(told)[:1000])
