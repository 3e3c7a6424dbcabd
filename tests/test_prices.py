"""Prices: a model is found by exact rules or not at all; a cost is a sum that can be checked."""

import subprocess
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.events import Usage
from orchestrator.prices import (
    HOSTS,
    MAKERS,
    Price,
    cost,
    find_price,
    price_of,
    read_snapshot,
    snapshot,
)

ROOT = Path(__file__).resolve().parent.parent
LITELLM = ROOT / ".venv/agents/litellm"
COUNTS = st.integers(0, 10**7)

KNOWN = read_snapshot(
    orjson.dumps(
        {
            "date": "2026-01-02",
            "source": "a test",
            "models": {
                "openai": {
                    "one": [1, 2, None, None, 1000, 100],
                    "two": [1, 2, 0.1, 1.25, 1000, 100, [500, 2, 3, 0.2, 2.5]],
                    "two-2026-01-01": [1, 2, 0.1, 1.25, 2000, 100, [500, 2, 3, 0.2, 2.5]],
                    "three": [1, 2, None, None, None, None],
                    "three-2025-01-01": [5, 6, None, None, None, None],
                    "shared": [1, 2, None, None, None, None],
                },
                "xai": {"shared": [3, 4, None, None, None, None]},
                "groq": {
                    "openai/one": [7, 8, None, None, None, None],
                    "fast": [7, 8, None, None, None, None],
                },
            },
        }
    )
)


def found(model: str, provider: str | None = None) -> float | None:
    price = find_price(model, KNOWN, provider)
    return None if price is None else price.input


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("one", 1),
        ("openai/one", 1),
        ("groq/openai/one", 7),
        ("groq/fast", 7),
        ("two-2026-01-01", 1),
        ("two-2026-05-06", 1),
        ("two-20260506", 1),
        ("two@20260506", 1),
        ("openai/two-2026-05-06", 1),
    ],
)
def test_a_model_is_found_by_its_name_its_provider_and_its_date(model, dollars):
    assert found(model) == dollars


@pytest.mark.parametrize(
    "model",
    [
        "",
        "On",
        "one-mini",
        "one-latest",
        "ONE",
        "one ",
        "fast",
        "shared",
        "xai/one",
        "nobody/one",
        "openai/openai/one",
        "/one",
        "three-2026-01-01",
        "four-2026-01-01",
        "two-2026-01",
        "two-1999-01-01",
    ],
)
def test_what_no_rule_finds_has_no_price(model):
    assert found(model) is None


def test_at_a_providers_own_address_the_name_is_that_providers():
    assert found("shared", "xai") == 3
    assert found("xai/shared", "xai") == 3
    assert found("openai/one", "groq") == 7
    assert found("one", "groq") is None


@pytest.mark.no_cover
@given(st.text(max_size=12))
def test_no_text_breaks_the_search(model):
    find_price(model, KNOWN)


@pytest.mark.parametrize(
    ("address", "priced"),
    [
        (None, True),
        ("https://api.openai.com/v1", True),
        ("api.openai.com", True),
        ("https://API.OpenAI.com:443/v1", True),
        ("https://api.anthropic.com", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://gateway.example/api.openai.com", False),
        ("http://127.0.0.1:4000/v1", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_a_list_holds_at_its_own_address_only(address, priced):
    agent = Agent(name="a", adapter="any", model="gpt-5.5", base_url=address)
    assert (price_of(agent) is not None) is priced


def test_an_agent_without_a_model_has_the_price_of_the_one_that_served():
    agent = Agent(name="a", adapter="any")
    assert price_of(agent) is None
    assert price_of(agent, "gpt-5.5") == find_price("gpt-5.5", snapshot())


# --- what it comes to -----------------------------------------------------------------------------

PRICE = Price(input=1, output=10, cache_read=0.1, cache_write=1.25)
LONG = replace(PRICE, above=1000, longer=Price(input=2, output=20, cache_read=0.2, cache_write=2.5))


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_cost_is_the_sum_of_its_parts(fresh, answer, read, write):
    usage = Usage(
        input_tokens=fresh, output_tokens=answer, cache_read_tokens=read, cache_write_tokens=write
    )
    in_full = fresh * 1 + answer * 10 + read * 0.1 + write * 1.25
    assert cost(PRICE, usage) == pytest.approx(in_full / 1e6)


def test_a_cache_without_a_price_costs_what_other_input_does():
    plain = Price(input=1, output=10)
    cached = Usage(
        input_tokens=0, output_tokens=0, cache_read_tokens=10**6, cache_write_tokens=10**6
    )
    assert cost(plain, cached) == pytest.approx(2)


@pytest.mark.parametrize(
    "usage", [Usage(), Usage(input_tokens=1), Usage(output_tokens=1, cache_read_tokens=1)]
)
def test_without_its_counts_a_cost_is_unknown(usage):
    assert cost(PRICE, usage) is None


def test_a_long_call_costs_more_all_of_it():
    call = Usage(input_tokens=600, cache_read_tokens=400, output_tokens=10)
    assert cost(LONG, call) == cost(PRICE, call)
    longer = replace(call, cache_write_tokens=1)
    assert cost(LONG, longer) == pytest.approx((600 * 2 + 400 * 0.2 + 1 * 2.5 + 10 * 20) / 1e6)


@pytest.mark.parametrize("scope", ["turn", "run"])
def test_a_sum_of_calls_that_may_have_been_long_has_no_known_cost(scope):
    short = Usage(input_tokens=1000, output_tokens=1, scope=scope)
    assert cost(LONG, short) == cost(PRICE, short)
    assert cost(LONG, replace(short, input_tokens=1001)) is None


def test_a_price_without_its_longer_form_is_no_guess():
    call = Usage(input_tokens=1001, output_tokens=1)
    assert cost(replace(LONG, longer=None), call) is None


# --- the snapshot ---------------------------------------------------------------------------------


def test_the_snapshot_says_of_when_and_whence_it_is():
    content = orjson.loads((ROOT / "orchestrator/prices.json").read_bytes())
    assert snapshot().date == content["date"]
    assert snapshot().source.startswith("LiteLLM ")
    assert content["licence"].startswith("MIT. Copyright (c) 2023 Berri AI Permission is hereby")


def test_the_snapshot_is_small():
    assert (ROOT / "orchestrator/prices.json").stat().st_size < 200_000


def test_every_price_of_the_snapshot_can_be_read_and_is_one():
    content = orjson.loads((ROOT / "orchestrator/prices.json").read_bytes())["models"]
    assert set(content) >= {*MAKERS, *HOSTS.values()}
    for provider, models in content.items():
        for model in models:
            price = find_price(model, snapshot(), provider)
            assert price is not None
            assert 0 < price.input < 1000
            assert 0 < price.output < 2000
            assert price.longer is None or price.above is not None


def test_no_local_model_and_no_subscription_is_in_the_snapshot():
    content = orjson.loads((ROOT / "orchestrator/prices.json").read_bytes())["models"]
    assert {"ollama", "lemonade", "chatgpt", "github_copilot"} & set(content) == set()


@pytest.mark.parametrize(
    "content", [b"[]", b'{"date": "d", "source": "s", "models": []}'], ids=["no table", "no models"]
)
def test_what_is_no_snapshot_is_refused(content):
    with pytest.raises(TypeError, match="no table"):
        read_snapshot(content)


def test_a_row_that_is_none_is_refused():
    broken = b'{"date": "d", "source": "s", "models": {"openai": {"one": 3}}}'
    with pytest.raises(TypeError, match="no list"):
        find_price("one", read_snapshot(broken))


@pytest.mark.skipif(not LITELLM.exists(), reason="only where the litellm agent is installed")
def test_the_snapshot_is_what_the_installed_litellm_says():
    done = subprocess.run([ROOT / "scripts/prices", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
