"""The wire format that Claude Code and Qwen Code share (`--output-format stream-json`): pieces of a
message, blocks, results of tools, plans, the tokens of a call. Pure; what an end means is each
CLI's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.reading import fields, items, text, whole
from orchestrator.events import (
    CostSource,
    MessageDelta,
    PlanEntry,
    PlanStatus,
    ThoughtDelta,
    Update,
    Usage,
)


def delta(of: Mapping[str, object], block: str) -> Update | None:
    """A piece of a text or of a thought; None: a piece of something else."""
    # Most lines are such ones: a pattern would take as long as all the rest of it.
    if isinstance(piece := of.get("text"), str):
        return MessageDelta(piece, block)
    if isinstance(piece := of.get("thinking"), str):
        return ThoughtDelta(piece, block)
    return None


def said(content: object) -> str:
    """The text of a result, which is one, or a list of blocks."""
    if isinstance(content, str):
        return content
    parts = (text(fields(block).get("text")) for block in items(content))
    return "\n".join(part for part in parts if part)


def todos(listed: object) -> list[PlanEntry]:
    """The plan that the tool for it was given."""
    entries: list[PlanEntry] = []
    for item in items(listed):
        match item:
            case {"content": str(step), "status": str(status)}:
                entries.append(PlanEntry(text=step, status=plan_status(status)))
            case _:
                pass
    return entries


def plan_status(status: object) -> PlanStatus:
    match status:
        case "completed":
            return "completed"
        case "in_progress":
            return "in_progress"
        case _:
            return "pending"


def call_usage(value: object, source: CostSource | None = None) -> Usage | None:
    """Tokens of one call, or of one `result`, as Anthropic's API counts them."""
    counts = fields(value)
    read = whole(counts.get("input_tokens"))
    if read is None:
        return None
    details = fields(counts.get("output_tokens_details"))
    return Usage(
        input_tokens=read,
        output_tokens=whole(counts.get("output_tokens")),
        cache_read_tokens=whole(counts.get("cache_read_input_tokens")),
        cache_write_tokens=whole(counts.get("cache_creation_input_tokens")),
        reasoning_tokens=whole(details.get("thinking_tokens")),
        cost_source=source,
    )
