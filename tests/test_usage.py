"""Tokens and cost, summed: None stays unknown, 0 stays zero, and the order does not matter."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.events import Usage
from orchestrator.prices import find_price, snapshot
from orchestrator.usage import (
    ANSWER_TOKENS,
    READ_TOKENS,
    Bill,
    Tally,
    add,
    bill_of,
    dollars,
    expected,
    priced,
)

TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
COUNT = st.none() | st.integers(0, 10**9)
SOURCES = st.sampled_from([None, "agent", "prices", "local", "subscription", "mixed"])
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


def test_costs_of_two_sources_are_mixed():
    total = add(
        Usage(input_tokens=1, cost_usd=0.0, cost_source="local"),
        Usage(input_tokens=1, cost_usd=0.25, cost_source="agent"),
    )
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (0.25, "mixed")


def test_a_subscription_keeps_its_unknown_cost():
    part = Usage(input_tokens=1, cost_source="subscription")
    total = add(part, part)
    assert total is not None
    assert (total.cost_usd, total.cost_source) == (None, "subscription")


@given(USAGES, USAGES)
def test_a_known_cost_is_the_sum_of_what_was_bill_of(one, other):
    total = add(one, other)
    assert total is not None
    if total.cost_usd is not None:
        assert total.cost_usd == (one.cost_usd or 0) + (other.cost_usd or 0)


# --- runs together --------------------------------------------------------------------------------

TWELVE_CENTS = Usage(input_tokens=1, cost_usd=0.12, cost_source="agent")
UNKNOWN = Usage(input_tokens=1)
LOGIN = Usage(input_tokens=1, cost_source="subscription")
FREE = Usage(input_tokens=1, cost_usd=0.0, cost_source="local")


@pytest.mark.parametrize(
    ("usages", "cost", "at_least", "unknown", "subscribed"),
    [
        ([], None, 0, 0, 0),
        ([FREE], 0, 0, 0, 0),
        ([TWELVE_CENTS, FREE], 0.12, 0.12, 0, 0),
        ([TWELVE_CENTS, UNKNOWN, None], None, 0.12, 2, 0),
        ([TWELVE_CENTS, LOGIN], None, 0.12, 0, 1),
        ([TWELVE_CENTS, UNKNOWN, LOGIN, LOGIN], None, 0.12, 1, 2),
        ([None, FREE], None, 0, 1, 0),
        ([LOGIN], None, 0, 0, 1),
    ],
)
def test_the_cost_of_several_runs_is_told_as_far_as_it_is_known(
    usages, cost, at_least, unknown, subscribed
):
    bill = bill_of(usages)
    assert (bill.cost_usd, bill.at_least_usd) == (cost, at_least)
    assert (bill.unknown, bill.subscribed, bill.runs) == (unknown, subscribed, len(usages))


@given(st.lists(MAYBE))
def test_the_cost_of_several_runs_is_whole_or_none(usages):
    total = bill_of(usages)
    known = [usage.cost_usd for usage in usages if usage and usage.cost_usd is not None]
    assert (total.runs, total.at_least_usd) == (len(usages), sum(known))
    assert total.cost_usd == (sum(known) if usages and len(known) == len(usages) else None)
    if total.usage is not None and len(known) < len(usages):
        assert total.usage.cost_usd is None


def test_no_runs_cost_nothing_that_is_known():
    assert (bill_of([]), bill_of([]).cost_usd) == (Bill(), None)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0, "$0.00"),
        (0.00001, "below $0.0001"),
        (0.0123, "$0.0123"),
        (0.0999, "$0.10"),
        (12.345, "$12.35"),
    ],
)
def test_a_small_amount_never_looks_like_nothing(amount, text):
    assert dollars(amount) == text


# --- what it costs --------------------------------------------------------------------------------

LOCAL = Agent(
    name="desk",
    adapter="any",
    model="qwen2.5-coder:14b",
    base_url="http://127.0.0.1:11434",
    tier="local",
)
OPENAI = Agent(name="cloud", adapter="any", model="gpt-5.5", api_key_env="OPENAI_API_KEY")
CALL = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=10_000)
LIST = 1000 * 5e-6 + 100 * 30e-6 + 10_000 * 0.5e-6  # dollars, by the list of OpenAI


def bill(usage: Usage) -> tuple[object, object]:
    return usage.cost_usd, usage.cost_source


@given(USAGES)
def test_a_price_changes_nothing_but_the_cost(usage):
    for agent in (LOCAL, OPENAI):
        for auth in ("key", "login", "none"):
            paid = priced(usage, agent, auth)
            assert replace(paid, cost_usd=None, cost_source=None) == replace(
                usage, cost_usd=None, cost_source=None
            )


# --- a run's, as it goes on -----------------------------------------------------------------------

OWED = Usage(input_tokens=10, output_tokens=1, cost_source="agent")


def test_the_cost_of_calls_is_their_turns():
    tally = Tally().plus(OWED).plus(OWED)
    assert tally.usage == Usage(input_tokens=20, output_tokens=2, cost_source="agent", scope="run")
    turn = Usage(input_tokens=0, cost_usd=0.5, cost_source="agent", scope="turn")
    tally = tally.plus(turn)
    assert tally.usage == Usage(
        input_tokens=20, output_tokens=2, cost_usd=0.5, cost_source="agent", scope="run"
    )
    again = tally.plus(OWED).plus(turn).usage
    assert again is not None
    assert (again.input_tokens, again.cost_usd) == (30, 1.0)


def test_what_the_agent_did_not_say_a_list_may():
    def price(usage: Usage) -> Usage:
        return priced(usage, OPENAI, "key")

    call = replace(CALL, cost_source="agent")
    tally = Tally().plus(Usage(input_tokens=1, cost_usd=0.25, cost_source="agent")).plus(call)
    assert tally.usage is not None
    assert tally.usage.cost_usd is None
    estimate = tally.estimated(price).usage
    assert estimate is not None
    assert bill(estimate) == (pytest.approx(0.25 + LIST), "mixed")
    assert Tally().estimated(price) == Tally()


def test_a_turn_that_tells_no_cost_leaves_it_open():
    tally = Tally().plus(OWED).plus(Usage(input_tokens=5, scope="turn"))
    assert tally.owed == replace(OWED, scope="run")
    assert tally.usage is not None
    assert (tally.usage.input_tokens, tally.usage.cost_usd) == (15, None)


def test_a_cost_that_the_agent_will_tell_is_not_looked_up():
    call = replace(CALL, cost_source="agent")
    assert bill(priced(call, OPENAI, "key")) == (None, "agent")
    assert bill(priced(call, LOCAL)) == (0.0, "local")
    assert bill(priced(call, OPENAI, "login")) == (None, "subscription")


@given(USAGES)
def test_a_known_cost_always_has_a_source(usage):
    for agent in (LOCAL, OPENAI):
        for auth in ("key", "login", "none"):
            paid = priced(usage, agent, auth)
            assert paid.cost_usd is None or paid.cost_source is not None


def test_tokens_of_a_local_model_cost_nothing():
    assert bill(priced(Usage(input_tokens=7), LOCAL)) == (0.0, "local")


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "deepseek-v3.1:671b-cloud", "glm:cloud"])
def test_a_model_that_a_local_server_passes_on_to_a_cloud_is_not_free(model):
    asked, served = replace(LOCAL, model=model), model
    assert bill(priced(CALL, asked)) == (None, None)
    assert bill(priced(CALL, replace(asked, tier="cloud"))) == (None, None)
    assert bill(priced(CALL, LOCAL, served=served)) == (None, None)


def test_an_agent_in_the_cloud_that_calls_its_model_local_is_not_believed():
    free = replace(CALL, cost_usd=0.0, cost_source="local")
    agent = replace(LOCAL, model="gpt-oss:120b-cloud", tier="cloud")
    assert bill(priced(free, agent)) == (None, None)
    assert bill(priced(free, OPENAI, "key")) == (pytest.approx(LIST), "prices")


@pytest.mark.parametrize("agent", [LOCAL, OPENAI])
def test_the_cost_that_the_cli_states_wins_over_the_list(agent):
    assert bill(priced(replace(CALL, cost_usd=1.5), agent, "key")) == (1.5, "agent")
    stated = replace(CALL, cost_usd=1.5, cost_source="prices")
    assert bill(priced(stated, agent, "key")) == (1.5, "prices")


def test_with_a_key_the_list_price_holds_where_the_cli_states_none():
    assert bill(priced(CALL, OPENAI, "key")) == (pytest.approx(LIST), "prices")
    at = replace(OPENAI, base_url="https://api.openai.com/v1")
    assert bill(priced(CALL, at, "key")) == (pytest.approx(LIST), "prices")


def test_the_model_that_served_is_the_one_that_is_paid():
    paid = priced(CALL, replace(OPENAI, model="best"), "key", "gpt-5.5-2026-04-23")
    assert bill(paid) == (pytest.approx(LIST), "prices")
    assert bill(priced(CALL, OPENAI, "key", "a-model-of-tomorrow")) == (None, None)


@pytest.mark.parametrize(
    ("agent", "auth"),
    [
        (replace(OPENAI, model=None), "key"),
        (replace(OPENAI, model="gpt-5.5-turbo-max"), "key"),
        (replace(OPENAI, base_url="https://gateway.example/v1"), "key"),
        (replace(OPENAI, base_url="http://127.0.0.1:4000"), "key"),
        (OPENAI, "none"),
    ],
    ids=["no model", "unlisted model", "somebody's gateway", "a gateway here", "no key"],
)
def test_what_is_not_known_stays_unknown(agent, auth):
    assert bill(priced(CALL, agent, auth)) == (None, None)


@given(USAGES)
def test_under_a_login_the_cost_is_unknown_whatever_the_cli_states(usage):
    bought = priced(replace(usage, cost_usd=1.5, cost_source="agent"), OPENAI, "login")
    assert bill(bought) == (None, "subscription")


def test_a_cli_that_says_it_is_a_subscription_is_believed():
    assert bill(priced(LOGIN, OPENAI, "none")) == (None, "subscription")


# --- what it may cost -----------------------------------------------------------------------------


def test_the_expected_cost_is_that_of_the_assumed_calls():
    usage = expected(OPENAI, "key", prompt_tokens=10_000, calls=3)
    fresh = 10_000 + 2 * READ_TOKENS
    again = 10_000 + (10_000 + READ_TOKENS)
    assert usage.input_tokens == fresh
    assert usage.cache_read_tokens == again
    assert usage.output_tokens == 3 * ANSWER_TOKENS
    by_hand = (fresh * 5 + again * 0.5 + 3 * ANSWER_TOKENS * 30) / 1e6
    assert bill(usage) == (pytest.approx(by_hand), "prices")


def test_what_is_read_first_is_written_to_a_cache_that_charges_for_it():
    agent = replace(OPENAI, model="claude-sonnet-4-5")
    usage = expected(agent, "key", prompt_tokens=10_000, calls=2)
    assert (usage.input_tokens, usage.cache_write_tokens) == (0, 10_000 + READ_TOKENS)
    price = find_price("claude-sonnet-4-5", snapshot())
    assert price is not None
    assert price.cache_write is not None
    assert usage.cost_usd is not None
    assert usage.cost_usd > (10_000 + READ_TOKENS) * price.cache_write / 1e6


def test_without_a_cache_every_call_pays_for_all_it_reads():
    agent = replace(OPENAI, model="gpt-4-turbo")
    usage = expected(agent, "key", prompt_tokens=1000, calls=2)
    assert (usage.input_tokens, usage.cache_read_tokens) == (2000 + READ_TOKENS, 0)


def test_the_expected_cost_is_unknown_where_the_real_one_would_be():
    assert bill(expected(replace(OPENAI, model="new"), "key", prompt_tokens=9)) == (None, None)
    assert bill(expected(OPENAI, "login", prompt_tokens=9)) == (None, "subscription")
    assert bill(expected(LOCAL, prompt_tokens=9)) == (0.0, "local")
