"""What a tool call of claude's is: its kind, title, places, output and diff. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from adapters.blocks import said
from adapters.reading import fields, first_line, items, text, whole
from orchestrator.adapter import TEXT_LIMIT
from orchestrator.events import Location, ToolCall, ToolCallStatus, ToolKind

KINDS: Mapping[str, ToolKind] = MappingProxyType(
    {
        "Read": "read",
        "NotebookRead": "read",
        "BashOutput": "read",
        "TaskOutput": "read",
        "Edit": "edit",
        "MultiEdit": "edit",
        "Write": "edit",
        "NotebookEdit": "edit",
        "Bash": "execute",
        "PowerShell": "execute",
        "KillShell": "execute",
        "Monitor": "execute",
        "Glob": "search",
        "Grep": "search",
        "LS": "search",
        "ToolSearch": "search",
        "WebFetch": "fetch",
        "WebSearch": "fetch",
        "EnterPlanMode": "switch_mode",
        "ExitPlanMode": "switch_mode",
        # What a sub-agent does is told call by call.
        "Agent": "think",
        "Task": "think",
        "TodoWrite": "think",
        "TaskCreate": "think",
        "TaskUpdate": "think",
        "TaskGet": "think",
        "TaskList": "think",
        "TaskStop": "think",
        "Skill": "think",
        "StructuredOutput": "think",
    }
)
"""The kind of each of claude's own tools that is known; of all others it is `other`."""

WRITERS = frozenset(name for name, kind in KINDS.items() if kind in {"edit", "execute"})
_TITLES = ("command", "file_path", "notebook_path", "pattern", "query", "url", "description")
_EXIT = re.compile(r"(?:Error: )?Exit code (\d{1,3})(?:\n|$)")
_NOT_THERE = re.compile(r"No such tool available: (\w+)")


def begun(id_: str, name: str, given: Mapping[str, object]) -> ToolCall:
    """A call that the model asks for."""
    place = text(given.get("file_path")) or text(given.get("notebook_path"))
    words = _title(given)
    plain = name == "Bash" or words is None
    return ToolCall(
        id_,
        "in_progress",
        KINDS.get(name, "other"),
        words if plain and words else f"{name} {words}" if words else name,
        given,
        None,
        [Location(place)] if place else None,
    )


def _title(given: Mapping[str, object]) -> str | None:
    for key in _TITLES:
        if (title := text(given.get(key))) is not None:
            return title
    return None


def ended(id_: str, result: Mapping[str, object], details: object) -> ToolCall:
    """A call that is over; `details` is what claude adds for programs (`tool_use_result`)."""
    output = said(result.get("content"))
    known = fields(details)
    failed = bool(result.get("is_error"))
    code = _exit_code(output, known, failed=failed)
    status: ToolCallStatus = "failed" if failed else "completed"
    return ToolCall(id_, status, None, None, None, output[:TEXT_LIMIT], None, _diff(known), code)


def missing(output: str) -> str | None:
    """The name of a tool that there is, but not here; None if the output says nothing of it."""
    found = _NOT_THERE.search(first_line(output))
    return found[1] if found and found[1] in WRITERS else None


def _exit_code(output: str, details: Mapping[str, object], *, failed: bool) -> int | None:
    if failed:
        found = _EXIT.match(output)
        return int(found[1]) if found else None
    ran = "stdout" in details and details.get("interrupted") is False
    return 0 if ran and "backgroundTaskId" not in details else None


def _diff(details: Mapping[str, object]) -> str | None:
    """A unified diff of the patch that an edit tells of."""
    path = text(details.get("filePath"))
    if path is None or not (hunks := list(_hunks(details.get("structuredPatch")))):
        return None
    return "\n".join((f"--- {path}", f"+++ {path}", *hunks, ""))[:TEXT_LIMIT]


def _hunks(patch: object) -> Iterator[str]:
    for hunk in items(patch):
        known = fields(hunk)
        numbers = [
            whole(known.get(key)) for key in ("oldStart", "oldLines", "newStart", "newLines")
        ]
        if None not in numbers:
            yield "@@ -{},{} +{},{} @@".format(*numbers)
            yield from (line for line in items(known.get("lines")) if isinstance(line, str))
