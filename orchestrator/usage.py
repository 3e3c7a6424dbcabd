"""Tokens and cost of a run, summed. None is unknown and 0 is zero: an unknown cost is never 0."""

from __future__ import annotations

from orchestrator.events import Tier, Usage


def add(one: Usage | None, other: Usage | None) -> Usage | None:
    """The sum of two usages. A token count that only one of them states is the other's too.

    The cost of a sum is known only if it is known of every part that used tokens.
    """
    if one is None or other is None:
        return one or other
    return Usage(
        input_tokens=_sum(one.input_tokens, other.input_tokens),
        output_tokens=_sum(one.output_tokens, other.output_tokens),
        cache_read_tokens=_sum(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens=_sum(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens=_sum(one.reasoning_tokens, other.reasoning_tokens),
        cost_usd=_cost(one, other),
        cost_source=one.cost_source if _used(one) else other.cost_source,
        scope="run",
    )


def priced(usage: Usage | None, tier: Tier) -> Usage | None:
    """The usage with the cost that its place implies: a local model's tokens cost nothing."""
    if usage is None or tier == "cloud" or usage.cost_usd is not None:
        return usage
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=0.0,
        cost_source="local",
        scope=usage.scope,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _used(usage: Usage) -> bool:
    return bool(
        usage.input_tokens
        or usage.output_tokens
        or usage.cache_read_tokens
        or usage.cache_write_tokens
        or usage.cost_usd
    )


def _cost(one: Usage, other: Usage) -> float | None:
    known = [part.cost_usd for part in (one, other) if _used(part)]
    if not known:
        return one.cost_usd if one.cost_usd is not None else other.cost_usd
    total = 0.0
    for cost in known:
        if cost is None:
            return None
        total += cost
    return total
