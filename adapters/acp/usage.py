"""Tokens, wherever an agent hides them: the protocol has no settled place. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.reading import fields, number, whole
from orchestrator.events import Usage


def chunk_usage(update: Mapping[str, object]) -> Usage | None:
    """qwen: below `_meta` of an empty chunk, for each call."""
    return _counted(fields(fields(update.get("_meta")).get("usage")))


def result_usage(result: Mapping[str, object]) -> Usage | None:
    """The protocol's own `usage`; gemini: `_meta.quota`, for the turn."""
    own = _counted(fields(result.get("usage")))
    if own is not None:
        return own
    quota = fields(fields(fields(result.get("_meta")).get("quota")).get("token_count"))
    tokens = whole(quota.get("input_tokens")), whole(quota.get("output_tokens"))
    if tokens == (None, None):
        return None
    return Usage(input_tokens=tokens[0], output_tokens=tokens[1], scope="turn")


def cost_of(update: Mapping[str, object]) -> float | None:
    """What the session has cost so far, in dollars. 0 is what an agent says that has no price."""
    cost = fields(update.get("cost"))
    amount = number(cost.get("amount")) if cost.get("currency") == "USD" else None
    return amount if amount and 0 < amount < 1e6 else None


def _counted(counts: Mapping[str, object]) -> Usage | None:
    read, wrote = whole(counts.get("inputTokens")), whole(counts.get("outputTokens"))
    if read is None and wrote is None:
        return None
    return Usage(
        input_tokens=read,
        output_tokens=wrote,
        cache_read_tokens=whole(counts.get("cachedReadTokens")),
        cache_write_tokens=whole(counts.get("cachedWriteTokens")),
        reasoning_tokens=whole(counts.get("thoughtTokens")),
    )
