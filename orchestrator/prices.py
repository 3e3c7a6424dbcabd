"""What the tokens of cloud models cost: a dated snapshot of LiteLLM's list, read when it is needed.

A model is found by exact rules or not at all; what is not found has no price. `scripts/prices`
makes the snapshot anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard
from urllib.parse import urlsplit

import orjson

from orchestrator.adapter import Agent
from orchestrator.events import Usage

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars for a million tokens, and the model's windows in tokens; None: not stated.

    Tokens of a cache that has no price of its own cost what other input does. A call with a prompt
    of more than `above` tokens costs what `longer` says, all of it.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    window: int | None = None
    output_window: int | None = None
    above: int | None = None
    longer: Price | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All prices as of a day: by provider and model, each a row of the file."""

    date: str
    source: str
    models: Mapping[str, object]


MAKERS = frozenset(
    {
        "anthropic",
        "cohere_chat",
        "deepseek",
        "gemini",
        "meta",
        "minimax",
        "mistral",
        "moonshot",
        "openai",
        "xai",
        "zai",
    }
)
"""Providers that serve models of their own: a name without a provider is one of theirs."""

HOSTS: Mapping[str, str] = MappingProxyType(
    {
        "api.anthropic.com": "anthropic",
        "api.cerebras.ai": "cerebras",
        "api.cohere.com": "cohere_chat",
        "api.deepinfra.com": "deepinfra",
        "api.deepseek.com": "deepseek",
        "api.fireworks.ai": "fireworks_ai",
        "api.groq.com": "groq",
        "api.minimax.io": "minimax",
        "api.mistral.ai": "mistral",
        "api.moonshot.ai": "moonshot",
        "api.openai.com": "openai",
        "api.together.xyz": "together_ai",
        "api.x.ai": "xai",
        "api.z.ai": "zai",
        "generativelanguage.googleapis.com": "gemini",
    }
)
"""Whose list holds at an address. At any other it is the gateway's owner who sets the price."""

_DATE = re.compile(r"[-@]20\d\d-?\d\d-?\d\d$")


# --- which price ---------------------------------------------------------------------------------


def price_of(agent: Agent, served: str | None = None) -> Price | None:
    """The list price of the agent's model (of the one that `served`, if that was said), or None."""
    model = served or agent.model
    if model is None:
        return None
    if agent.base_url is None:
        return find_price(model, snapshot())
    provider = HOSTS.get(_host(agent.base_url))
    return None if provider is None else find_price(model, snapshot(), provider)


def find_price(model: str, known: Snapshot, provider: str | None = None) -> Price | None:
    """The price of `PROVIDER/MODEL`, of a model of this provider, or of one that a single maker
    has.

    A dated name that is not listed has the price of the undated one, unless another date of it
    costs something else.
    """
    first, slash, rest = model.partition("/")
    if provider is None and slash:
        provider, model = first, rest
    elif slash and first == provider:
        model = rest
    if provider is not None:
        return _listed(model, known, provider)
    found = [_listed(model, known, maker) for maker in sorted(MAKERS)]
    prices = [price for price in found if price is not None]
    return prices[0] if len(prices) == 1 else None


def _listed(model: str, known: Snapshot, provider: str) -> Price | None:
    rows = _table(known.models.get(provider, {}))
    if model in rows:
        return _price(rows[model])
    plain = _DATE.sub("", model)
    if plain == model or plain not in rows:
        return None
    dates = [_price(row) for name, row in rows.items() if _DATE.sub("", name) == plain]
    prices = {replace(price, window=None, output_window=None) for price in dates}
    return _price(rows[plain]) if len(prices) == 1 else None


def _host(base_url: str) -> str:
    try:
        return urlsplit(base_url if "://" in base_url else f"//{base_url}").hostname or ""
    except ValueError:
        return ""


# --- what it comes to ----------------------------------------------------------------------------


def cost(price: Price, usage: Usage) -> float | None:
    """Dollars; None where a count is missing, or where calls are summed and some of them may have
    been long enough for the higher price.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, write = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    if price.above is not None and usage.input_tokens + read + write > price.above:
        if usage.scope != "call" or price.longer is None:
            return None
        price = price.longer
    return (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + read * (price.input if price.cache_read is None else price.cache_read)
        + write * (price.input if price.cache_write is None else price.cache_write)
    ) / MILLION


# --- the snapshot --------------------------------------------------------------------------------


@cache
def snapshot() -> Snapshot:
    """The prices that came with this version."""
    return read_snapshot(Path(__file__).with_name("prices.json").read_bytes())


def read_snapshot(content: bytes) -> Snapshot:
    """The snapshot in a file of `scripts/prices`."""
    said = _table(orjson.loads(content))
    return Snapshot(
        date=str(said["date"]), source=str(said["source"]), models=_table(said["models"])
    )


def _price(row: object) -> Price:
    columns = _list(row)
    input_, output, read, write, window, answer = columns[:6]
    price = _prices((input_, output, read, write))
    for longer in columns[6:]:
        above, *prices = _list(longer)
        price = replace(price, above=_count(above), longer=_prices(prices))
    return replace(price, window=_count(window), output_window=_count(answer))


def _prices(four: Iterable[object]) -> Price:
    input_, output, read, write = (_number(one) for one in four)
    return Price(input=input_ or 0.0, output=output or 0.0, cache_read=read, cache_write=write)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _table(value: object) -> Mapping[str, object]:
    if not _is_table(value):
        raise TypeError(f"no table: {value!r}")
    return value


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _list(value: object) -> list[object]:
    if not _is_list(value):
        raise TypeError(f"no list: {value!r}")
    return value


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
