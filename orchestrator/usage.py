"""Tokens and cost of a run, summed. None is unknown and 0 is zero: an unknown cost is never 0."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.events import Auth, Tier, Usage


def add(one: Usage | None, other: Usage | None) -> Usage | None:
    """The sum of two usages, None if there is nothing. A count that only one states is the sum's.

    The cost of a sum is known only if it is known of every part that used tokens, and has a source
    only if these parts have the same one.
    """
    if one is None or other is None:
        alone = one or other
        return None if alone is None else replace(alone, scope="run")
    used = [part for part in (one, other) if _used(part)] or [one, other]
    source = used[0].cost_source
    return Usage(
        input_tokens=_sum(one.input_tokens, other.input_tokens),
        output_tokens=_sum(one.output_tokens, other.output_tokens),
        cache_read_tokens=_sum(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens=_sum(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens=_sum(one.reasoning_tokens, other.reasoning_tokens),
        cost_usd=_cost(used),
        cost_source=source if used[-1].cost_source == source else None,
        scope="run",
    )


def priced(usage: Usage | None, tier: Tier, auth: Auth = "none") -> Usage | None:
    """The usage with the cost that its place implies: a local model's tokens cost nothing.

    What tokens cost under a login is unknown: a CLI that states a price states the list's.
    """
    if usage is None:
        return None
    if auth == "login":
        return replace(usage, cost_usd=None, cost_source="subscription")
    if tier == "cloud" or usage.cost_usd is not None:
        return usage
    return replace(usage, cost_usd=0.0, cost_source="local")


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
        or usage.reasoning_tokens
        or usage.cost_usd
    )


def _cost(parts: list[Usage]) -> float | None:
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    return sum(costs) if len(costs) == len(parts) else None
