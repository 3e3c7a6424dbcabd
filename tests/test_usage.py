"""Tokens and cost, summed: None stays unknown, 0 stays zero, and the order does not matter."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.events import Usage
from orchestrator.usage import add, priced

TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
COUNT = st.none() | st.integers(0, 10**9)
SOURCES = st.sampled_from([None, "agent", "prices", "local", "subscription"])
USAGES = st.builds(
    Usage,
    **dict.fromkeys(TOKENS, COUNT),
    # Whole dollars: floats of cents add up to something else in another order.
    cost_usd=st.none() | st.integers(0, 1000).map(float),
    cost_source=SOURCES,
    scope=st.sampled_from(["call", "turn", "run"]),
)
MAYBE = st.none() | USAGES


@given(MAYBE, MAYBE, MAYBE)
def test_it_does_not_matter_which_two_are_added_first(one, two, three):
    assert add(add(one, two), three) == add(one, add(two, three))


@given(MAYBE, MAYBE)
def test_it_does_not_matter_which_comes_first(one, other):
    assert add(one, other) == add(other, one)


@given(USAGES, USAGES)
def test_a_count_is_unknown_only_if_nobody_states_it(one, other):
    total = add(one, other)
    assert total is not None
    for name in TOKENS:
        stated = [count for part in (one, other) if (count := getattr(part, name)) is not None]
        assert getattr(total, name) == (sum(stated) if stated else None)


@given(USAGES)
def test_nothing_added_changes_nothing_but_the_scope(usage):
    assert add(usage, None) == add(None, usage) == replace(usage, scope="run")


def test_nothing_and_nothing_is_nothing():
    assert add(None, None) is None


def test_what_is_added_is_left_as_it_was():
    one, other = Usage(input_tokens=1), Usage(input_tokens=2)
    assert add(one, other) == Usage(input_tokens=3, scope="run")
    assert (one, other) == (Usage(input_tokens=1), Usage(input_tokens=2))


@pytest.mark.parametrize("name", TOKENS)
def test_a_part_that_used_tokens_at_an_unknown_cost_makes_the_cost_unknown(name):
    known = Usage(input_tokens=1, cost_usd=0.5, cost_source="agent")
    unpriced = Usage()
    setattr(unpriced, name, 1)
    total = add(known, unpriced)
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (None, None)


def test_a_part_that_used_nothing_has_no_say_in_the_cost():
    known = Usage(input_tokens=1, cost_usd=0.5, cost_source="agent")
    total = add(known, Usage(input_tokens=0, cost_usd=None))
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (0.5, "agent")


def test_a_cost_of_zero_is_known():
    total = add(
        Usage(input_tokens=1, cost_usd=0.0, cost_source="local"),
        Usage(input_tokens=1, cost_usd=0.0, cost_source="local"),
    )
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (0.0, "local")


def test_costs_of_two_sources_have_no_single_one():
    total = add(
        Usage(input_tokens=1, cost_usd=0.0, cost_source="local"),
        Usage(input_tokens=1, cost_usd=0.25, cost_source="agent"),
    )
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (0.25, None)


def test_a_subscription_keeps_its_unknown_cost():
    part = Usage(input_tokens=1, cost_source="subscription")
    total = add(part, part)
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (None, "subscription")


@given(USAGES, USAGES)
def test_a_known_cost_is_the_sum_of_what_was_spent(one, other):
    total = add(one, other)
    assert total is not None
    if total.cost_usd is not None:
        assert total.cost_usd == (one.cost_usd or 0) + (other.cost_usd or 0)


# --- the place's price ----------------------------------------------------------------------------


def test_tokens_of_a_local_model_cost_nothing():
    assert priced(Usage(input_tokens=7), "local") == Usage(
        input_tokens=7, cost_usd=0.0, cost_source="local"
    )


@given(MAYBE)
def test_in_the_cloud_an_unknown_cost_stays_unknown(usage):
    assert priced(usage, "cloud") == usage


@given(USAGES)
def test_a_stated_cost_is_never_replaced(usage):
    stated = replace(usage, cost_usd=1.5, cost_source="agent")
    assert priced(stated, "local") == stated


@given(USAGES)
def test_under_a_login_the_cost_is_unknown_whatever_the_cli_states(usage):
    bought = priced(replace(usage, cost_usd=1.5, cost_source="agent"), "cloud", "login")
    assert bought == replace(usage, cost_usd=None, cost_source="subscription")


def test_no_usage_has_no_price():
    assert priced(None, "local") is None
