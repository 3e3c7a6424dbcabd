"""Tokens and cost: summed, priced, and foretold. None is unknown and 0 is zero: an unknown cost is
never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from orchestrator.adapter import Agent
from orchestrator.events import Auth, CostSource, Usage
from orchestrator.prices import cost, price_of
from orchestrator.server import is_remote

# --- sums ----------------------------------------------------------------------------------------


def add(one: Usage | None, other: Usage | None) -> Usage | None:
    """The sum of two usages, None if there is nothing. A count that only one states is the sum's.

    The cost of a sum is known only if it is known of every part that used tokens. Its source is
    that of these parts, `mixed` if they have several.
    """
    if one is None or other is None:
        alone = one or other
        return None if alone is None else replace(alone, scope="run")
    used = [part for part in (one, other) if _used(part)] or [one, other]
    return Usage(
        input_tokens=_sum(one.input_tokens, other.input_tokens),
        output_tokens=_sum(one.output_tokens, other.output_tokens),
        cache_read_tokens=_sum(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens=_sum(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens=_sum(one.reasoning_tokens, other.reasoning_tokens),
        cost_usd=_cost(used),
        cost_source=_source(used),
        scope="run",
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
        or usage.reasoning_tokens
        or usage.cost_usd
    )


def _cost(parts: list[Usage]) -> float | None:
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    return sum(costs) if len(costs) == len(parts) else None


def _source(parts: list[Usage]) -> CostSource | None:
    sources: list[CostSource | None] = [part.cost_source for part in parts]
    first, *others = sources
    if first is None or None in others:
        return None
    return first if all(other == first for other in others) else "mixed"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one run has used so far: `told`, and `owed`, the calls whose cost its agent states only
    with their turn.
    """

    told: Usage | None = None
    owed: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """All of it; the cost is unknown as long as some is owed."""
        return self.told if self.owed is None else add(self.told, self.owed)

    def plus(self, usage: Usage) -> Tally:
        """With one more usage of the run."""
        if is_owed(usage):
            return Tally(told=self.told, owed=add(self.owed, usage))
        if self.owed is not None and usage.scope == "turn" and usage.cost_source == "agent":
            turn = add(self.owed, usage) or usage
            turn = replace(turn, cost_usd=usage.cost_usd, cost_source=usage.cost_source)
            return Tally(told=add(self.told, turn))
        return Tally(told=add(self.told, usage), owed=self.owed)

    def estimated(self, price: Callable[[Usage], Usage]) -> Tally:
        """The same with what is owed as far as a list has a price for it: until the agent says it,
        or if it never will.
        """
        if self.owed is None:
            return self
        return Tally(told=self.told, owed=price(replace(self.owed, cost_source=None)))


def is_owed(usage: Usage) -> bool:
    """Whether its cost is still to be told by the agent, which will."""
    return usage.cost_source == "agent" and usage.cost_usd is None


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What several runs used together, a job's or a task's.

    `usage` is their sum, its cost None unless each run's is known. `at_least_usd` is the part of
    the cost that is known. `unknown` runs have an unknown cost (those that told nothing are among
    them), `subscribed` ones a login's, which nobody pays by the token.
    """

    usage: Usage | None = None
    at_least_usd: float = 0.0
    runs: int = 0
    unknown: int = 0
    subscribed: int = 0

    @property
    def cost_usd(self) -> float | None:
        """The whole cost, if it is known."""
        whole = self.runs and not self.unknown and not self.subscribed
        return self.at_least_usd if whole else None


def bill_of(usages: Iterable[Usage | None]) -> Bill:
    """The sum of runs; None is one that told no usage."""
    total = Bill()
    for usage in usages:
        known = usage.cost_usd if usage is not None else None
        subscribed = known is None and usage is not None and usage.cost_source == "subscription"
        total = Bill(
            usage=add(total.usage, usage),
            at_least_usd=total.at_least_usd + (known or 0.0),
            runs=total.runs + 1,
            unknown=total.unknown + (known is None and not subscribed),
            subscribed=total.subscribed + subscribed,
        )
    if total.usage is None or total.cost_usd is not None:
        return total
    return replace(total, usage=replace(total.usage, cost_usd=None))


def dollars(amount: float) -> str:
    """`$1.25`, and as many digits as a small amount needs: one that is not 0 never looks it."""
    if amount == 0 or abs(amount) >= 0.095:
        return f"${amount:.2f}"
    return f"${amount:.4f}" if abs(amount) >= 0.00005 else "below $0.0001"


# --- prices --------------------------------------------------------------------------------------


def priced(usage: Usage, agent: Agent, auth: Auth = "none", served: str | None = None) -> Usage:
    """The usage with its cost and where that is from, as far as it can be known.

    The first that applies: under a login nothing is paid by the token, whatever the CLI states; the
    cost that the CLI states, which its adapter passes on only where it is not made up; a local
    model costs nothing; one that the agent has still to state is left open; the list price of the
    model (that `served`, if it was said), where the agent came with a key to a provider's own
    address. Else it is unknown.
    """
    if auth == "login":
        return replace(usage, cost_usd=None, cost_source="subscription")
    local = agent.tier == "local" and not _remote(agent.model) and not _remote(served)
    if usage.cost_usd is not None and (local or usage.cost_source != "local"):
        return replace(usage, cost_source=usage.cost_source or "agent")
    if local:
        return replace(usage, cost_usd=0.0, cost_source="local")
    if is_owed(usage):
        return usage
    price = price_of(agent, served) if auth == "key" and agent.tier == "cloud" else None
    dollars_ = None if price is None else cost(price, usage)
    source = usage.cost_source if usage.cost_source == "subscription" else None
    return replace(usage, cost_usd=dollars_, cost_source=source if dollars_ is None else "prices")


def _remote(model: str | None) -> bool:
    # Ollama forwards such models to its own cloud, and LiteLLM's list says that they cost nothing.
    return model is not None and is_remote(model)


# --- what it may cost ----------------------------------------------------------------------------

CALLS = 20
"""Model calls that an agent makes for a task, unless somebody knows better."""
READ_TOKENS, ANSWER_TOKENS = 1500, 400
"""What each call adds to the next one's prompt (its own answer is in it), and what it answers."""


def expected(
    agent: Agent,
    auth: Auth = "none",
    *,
    prompt_tokens: int,
    calls: int = CALLS,
) -> Usage:
    """What a task may use and cost: an assumption, and no promise.

    `prompt_tokens` are read by the first call (the agent's own prompt and the task); each later
    call reads all that came before it, from the cache where the model has one, and
    `READ_TOKENS` more. The cost is unknown where the real one would be.
    """
    total = Usage(input_tokens=0, output_tokens=0, scope="run")
    price = price_of(agent)
    reads_cache = price is not None and price.cache_read is not None
    writes_cache = price is not None and price.cache_write is not None
    for call in range(calls):
        fresh = READ_TOKENS if call else prompt_tokens
        before = prompt_tokens + READ_TOKENS * (call - 1) if call else 0
        one = Usage(
            input_tokens=0 if writes_cache else fresh + (0 if reads_cache else before),
            cache_write_tokens=fresh if writes_cache else 0,
            cache_read_tokens=before if reads_cache else 0,
            output_tokens=ANSWER_TOKENS,
        )
        total = add(total, priced(one, agent, auth)) or total
    return total
