"""What a tool call of the protocol is as an event: kind, places, output, diff, status. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import get_args

from adapters.reading import fields, items, text, whole
from orchestrator.adapter import TEXT_LIMIT
from orchestrator.events import (
    Location,
    PlanEntry,
    PlanStatus,
    ToolCall,
    ToolCallStatus,
    ToolKind,
)

KINDS: Mapping[str, ToolKind] = MappingProxyType({word: word for word in get_args(ToolKind)})
_STATUSES: Mapping[str, ToolCallStatus] = MappingProxyType(
    {word: word for word in get_args(ToolCallStatus)}
)
_PLANNED: Mapping[str, PlanStatus] = MappingProxyType({word: word for word in get_args(PlanStatus)})
_LONGEST_DIFF = 200_000
"""Characters of a file beyond which no diff is made of its two texts: that takes its time."""


def call_of(told: Mapping[str, object]) -> ToolCall | None:
    """What a `tool_call` or `tool_call_update` tells; None if it names no call."""
    id_ = text(told.get("toolCallId"))
    if id_ is None:
        return None
    given, got = told.get("rawInput"), fields(told.get("rawOutput"))
    exit_code = _exit_code(got)
    status = _STATUSES.get(str(told.get("status")))
    if status == "completed" and exit_code:
        status = "failed"  # the tool did what it was to do; the command did not
    return ToolCall(
        id=id_,
        status=status,
        kind=KINDS.get(str(told.get("kind"))),
        title=text(told.get("title")),
        input=given or None,
        output=_output(told, got),
        locations=[Location(path=path) for path in places(told)] or None,
        diff=_diff(told, got),
        exit_code=exit_code,
    )


def places(told: Mapping[str, object]) -> list[str]:
    """The files that a call touches: its locations, and those of its diffs."""
    named = [fields(place).get("path") for place in items(told.get("locations"))]
    named += [block.get("path") for block in _blocks(told, "diff")]
    return list(dict.fromkeys(path for path in map(text, named) if path))


def steps(listed: object) -> list[PlanEntry]:
    """The entries of a plan."""
    entries: list[PlanEntry] = []
    for entry in map(fields, items(listed)):
        said = text(entry.get("content"))
        if said is not None:
            status = _PLANNED.get(str(entry.get("status")), "pending")
            entries.append(PlanEntry(text=said, status=status))
    return entries


def _blocks(told: Mapping[str, object], kind: str) -> Iterator[Mapping[str, object]]:
    for block in map(fields, items(told.get("content"))):
        if block.get("type") == kind:
            yield block


def _output(told: Mapping[str, object], got: Mapping[str, object]) -> str | None:
    said = [text(fields(block.get("content")).get("text")) for block in _blocks(told, "content")]
    whole_ = "\n".join(part for part in said if part)
    return whole_[:TEXT_LIMIT] or text(got.get("output")) or text(told.get("rawOutput"))


def _exit_code(got: Mapping[str, object]) -> int | None:
    """Where opencode, and where qwen puts it."""
    known = whole(fields(got.get("metadata")).get("exit"))
    return whole(got.get("exitCode")) if known is None else known


def _diff(told: Mapping[str, object], got: Mapping[str, object]) -> str | None:
    """The agent's own diff, or one of the two texts of each file."""
    own = text(fields(got.get("metadata")).get("diff")) or text(got.get("fileDiff"))
    if own is not None:
        return own
    made = "".join(_unified(block) for block in _blocks(told, "diff"))
    return made[:TEXT_LIMIT] or None


def _unified(block: Mapping[str, object]) -> str:
    path, before, after = (block.get(name) for name in ("path", "oldText", "newText"))
    old = before if isinstance(before, str) else ""
    if not isinstance(path, str) or not isinstance(after, str):
        return ""
    if len(old) + len(after) > _LONGEST_DIFF:
        return ""
    lines = difflib.unified_diff(old.splitlines(), after.splitlines(), path, path, lineterm="")
    return "".join(f"{line}\n" for line in lines)
