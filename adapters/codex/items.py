"""What an item of codex's is: a tool call, a plan; and what its words about an end mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from adapters.reading import fields, items, text
from orchestrator.adapter import Exit, json_line
from orchestrator.events import (
    Error,
    ErrorKind,
    Location,
    PlanEntry,
    ToolCall,
    ToolCallStatus,
    ToolKind,
)
from orchestrator.model_errors import error_kind

if TYPE_CHECKING:
    from pydantic import JsonValue

CUT = re.compile(r"Incomplete response returned, reason: (\w+)")
"""How an answer that the provider ended is reported: `max_output_tokens` or `content_filter`."""

PANIC = 101
_NO_SUCH_PAGE = re.compile(r"unexpected status 40[45]")
_SHELL = re.compile(r"\S*/(?:ba|z)?sh -l?c (['\"])(.*)\1", re.DOTALL)
_BASH = "/bin/bash -lc "
_QUOTE = len(_BASH)
_WORDS = ("agent_message", "reasoning", "todo_list", "error")
_RETRYABLE: frozenset[ErrorKind] = frozenset({"unavailable", "server_error", "rate_limited"})

# --- tool calls and plans ------------------------------------------------------------------------


def unknown_call(id_: str, status: ToolCallStatus, item: Mapping[str, object]) -> ToolCall | None:
    """A call of a kind that is not known here; if left open, that counts. None if it is none."""
    kind, stated = item.get("type"), item.get("status")
    if not isinstance(stated, str) or kind in _WORDS:
        return None
    return ToolCall(id_, status, "other", text(kind) or "item", dict(item))


def _file_change(id_: str, status: ToolCallStatus, item: Mapping[str, JsonValue]) -> ToolCall:
    titles: list[str] = []
    places: list[Location] = []
    deletes = 0
    listed = item.get("changes")
    for change in listed if isinstance(listed, list) else ():
        if isinstance(change, dict):
            what, path = change.get("kind"), change.get("path")
            if isinstance(what, str) and isinstance(path, str):
                titles.append(f"{what} {path}")
                places.append(Location(path))
                deletes += what == "delete"
    kind: ToolKind = "delete" if 0 < deletes == len(places) else "edit"
    return ToolCall(id_, status, kind, ", ".join(titles), None, None, places)


def _mcp_call(id_: str, status: ToolCallStatus, item: Mapping[str, object]) -> ToolCall | None:
    match item:
        case {"server": str(server), "tool": str(tool)}:
            return ToolCall(
                id=id_,
                status=status,
                kind="other",
                title=f"{server}.{tool}",
                input=item.get("arguments"),
                output=_result(item),
            )
        case _:
            return unknown_call(id_, status, item)


def _web_search(id_: str, status: ToolCallStatus, item: Mapping[str, object]) -> ToolCall:
    title = text(item.get("query")) or "web search"
    return ToolCall(id=id_, status=status, kind="fetch", title=title)


def _agents_call(id_: str, status: ToolCallStatus, item: Mapping[str, object]) -> ToolCall | None:
    match item:
        case {"tool": str(tool)}:
            return ToolCall(id=id_, status=status, kind="other", title=tool)
        case _:
            return unknown_call(id_, status, item)


_Call: TypeAlias = "Callable[[str, ToolCallStatus, Mapping[str, JsonValue]], ToolCall | None]"
CALLS: Mapping[str, _Call] = {
    "file_change": _file_change,
    "mcp_tool_call": _mcp_call,
    "web_search": _web_search,
    "collab_tool_call": _agents_call,
}
"""What reads a call, by the type of its item; a command is the conversation's."""


def plan_entries(listed: object) -> Iterator[PlanEntry]:
    for item in map(fields, items(listed)):
        step, completed = item.get("text"), item.get("completed")
        if isinstance(step, str) and isinstance(completed, bool):
            yield PlanEntry(step, "completed" if completed else "pending")


def asked(arguments: object) -> str:
    """What a tool was asked: a shell's command, or the arguments as they are."""
    said = text(arguments) or ""
    match json_line(said.encode("utf-8", "replace")):
        case {"cmd": str(command)}:
            return command
        case _:
            return said


def call_status(stated: object, over: bool) -> ToolCallStatus:
    """The status of an item that states this one, `over` or begun."""
    if stated == "completed":
        return "completed"
    if stated == "in_progress" or not over:
        return "in_progress"
    return "completed" if stated is None else "failed"  # a web search states none


def unwrapped(command: str) -> str:
    """The command without the shell that codex puts around it."""
    # Nearly always this one, and in a fifth of the pattern's time.
    if command[:_QUOTE] == _BASH and len(command) > _QUOTE + 1:
        quote = command[_QUOTE]
        if quote == command[-1] and quote in "'\"":
            return command[_QUOTE + 1 : -1]
    found = _SHELL.fullmatch(command)
    return found[2] if found else command


def _result(item: Mapping[str, object]) -> str | None:
    match item:
        case {"error": {"message": str(message)}}:
            return text(message)
        case _:
            parts = items(fields(item.get("result")).get("content"))
            texts = [text(fields(part).get("text")) for part in parts]
            return text("\n".join(said for said in texts if said))


# --- ends ----------------------------------------------------------------------------------------


def plain(said: str) -> str:
    """The provider's words, out of the JSON that it put around them."""
    match json_line(said.encode("utf-8", "replace")):
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return said


def failure(said: str) -> Error:
    """The error that ended a turn."""
    if (cut := CUT.search(said)) is not None:
        kind: ErrorKind = "refused" if cut[1] == "content_filter" else "incomplete"
        return Error(kind=kind, text=said, retryable=False)
    if said.startswith("Missing environment variable"):
        hint = "Set the variable that the agent's `api_key_env` names."
        return Error(kind="auth_failed", text=said, retryable=False, hint=hint)
    if _NO_SUCH_PAGE.match(said) and "model" not in said.lower():
        hint = (
            "codex needs /v1/responses of a server; this one has none there (Ollama: from 0.13.4)."
        )
        return Error(kind="invalid_request", text=said, retryable=False, hint=hint)
    kind = error_kind(said)
    if kind == "unknown" and plain(said) != said:
        kind = "invalid_request"  # only the body of a 400 is told as it is
    return Error(kind=kind, text=plain(said), retryable=kind in _RETRYABLE)


# What codex says on stderr when it ends before it began: wording, kind, remedy.
_NEVER_BEGAN: tuple[tuple[str, ErrorKind, str | None], ...] = (
    (r"^error: ", "bad_usage", "Is this a codex of another version? See `codex exec --help`."),
    (r"Error loading config", "bad_usage", "See the agent's options, `config` above all."),
    (r"no rollout found", "bad_usage", "A session goes on only in the home that it was made in."),
    (r"No prompt provided|Error finding codex home", "bad_usage", None),
    (r"required MCP servers failed", "bad_usage", "Can this MCP server be started?"),
    (
        r"Pull failed|LM Studio not found",
        "model_not_found",
        "The server has no model of this name.",
    ),
    (r"LM Studio is not responding", "unavailable", "Is it running (`lms server start`)?"),
)


def never_began(exit: Exit) -> Error:
    """Why stdout stayed empty, by stderr."""
    lines = [
        line for line in exit.stderr.splitlines() if line and not line.lower().startswith("warning")
    ]
    if not lines:
        said = f"codex ended (exit {exit.status}) and said nothing"
        return Error(kind="crashed" if exit.status == PANIC else "incomplete", text=said)
    said = next((line for line in lines if line.lower().startswith("error")), lines[-1])
    for wording, kind, hint in _NEVER_BEGAN:
        if re.search(wording, exit.stderr, re.MULTILINE):
            return Error(kind=kind, text=said, retryable=kind in _RETRYABLE, hint=hint)
    kind = "crashed" if exit.status == PANIC else error_kind(exit.stderr)
    return Error(kind=kind, text=said, retryable=kind in _RETRYABLE)
