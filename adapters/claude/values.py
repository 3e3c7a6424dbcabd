"""How claude's JSON is looked into: values of a stated type, or nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from adapters.reading import fields, is_object, number, whole
from orchestrator.events import Usage


def seconds(milliseconds: object) -> float | None:
    value = number(milliseconds)
    return None if value is None else round(value / 1000, 3)


def instant(since_1970: object) -> str | None:
    """Seconds since 1970 in RFC 3339; None for anything else."""
    value = whole(since_1970)
    if value is None or not 0 <= value < 2**32:
        return None
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def call_end(begun: Usage, counts: Mapping[str, object]) -> Usage:
    """The same call at its end: what a `message_delta` states is all of it so far."""
    prompt, read = whole(counts.get("input_tokens")), whole(counts.get("cache_read_input_tokens"))
    written = whole(counts.get("cache_creation_input_tokens"))
    details = fields(counts.get("output_tokens_details"))
    return Usage(
        # Where the provider itself used tools, the prompt has grown meanwhile.
        input_tokens=prompt or begun.input_tokens,
        cache_read_tokens=read or begun.cache_read_tokens,
        cache_write_tokens=written or begun.cache_write_tokens,
        output_tokens=whole(counts.get("output_tokens")),
        reasoning_tokens=whole(details.get("thinking_tokens")),
        cost_source=begun.cost_source,
    )


def used(usage: Usage) -> bool:
    """Whether there are any tokens."""
    return bool(prompt_size(usage) or usage.output_tokens)


def usage_sum(one: Usage, other: Usage) -> Usage:
    """Tokens of both."""
    return Usage(
        input_tokens=_both(one.input_tokens, other.input_tokens),
        output_tokens=_both(one.output_tokens, other.output_tokens),
        cache_read_tokens=_both(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens=_both(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens=_both(one.reasoning_tokens, other.reasoning_tokens),
    )


def models_usage(value: object, *, billed: bool) -> Usage | None:
    """Tokens of all models, sub-agents' included; None if there is no such table.

    The cost counts only if it is `billed` and of prices that claude knows: for other models it
    invents one.
    """
    if not is_object(value):
        return None
    models = [fields(model) for model in value.values()]
    known = billed and all(model.get("costBasis", "list") != "unknown" for model in models)
    costs = [number(model.get("costUSD")) for model in models] if known else [None]
    return Usage(
        input_tokens=_sum(model.get("inputTokens") for model in models),
        output_tokens=_sum(model.get("outputTokens") for model in models),
        cache_read_tokens=_sum(model.get("cacheReadInputTokens") for model in models),
        cache_write_tokens=_sum(model.get("cacheCreationInputTokens") for model in models),
        reasoning_tokens=_sum(model.get("thinkingTokens") for model in models),
        cost_usd=_total(costs),
        cost_source="agent" if _total(costs) is not None else None,
    )


def window(models: object) -> int | None:
    """The context window of the model, if it is one that claude knows; else it is assumed."""
    known = [
        whole(fields(model).get("contextWindow"))
        for model in fields(models).values()
        if fields(model).get("costBasis", "list") != "unknown"
    ]
    return known[0] if len(known) == 1 else None


def prompt_size(usage: Usage) -> int:
    """Tokens that the model read in one call."""
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    return (usage.input_tokens or 0) + cached


def _both(one: int | None, other: int | None) -> int:
    return (one or 0) + (other or 0)


def _sum(counts: Iterable[object]) -> int:
    return sum(whole(count) or 0 for count in counts)


def _total(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
