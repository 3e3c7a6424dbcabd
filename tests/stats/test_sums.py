"""Counting runs: rates with the interval they deserve, nothing dropped, nothing counted twice."""

import itertools
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.events import Usage
from orchestrator.prices import Price
from orchestrator.stats.sums import (
    Axis,
    Ran,
    grouped,
    matching,
    said,
    saved,
    total,
    usual_cloud_model,
    wilson,
)

PRICE = Price(input=1, output=10, cache_read=0.1, above=100, longer=Price(input=9, output=9))
MILLION = Usage(input_tokens=10**6, output_tokens=10**5, cost_usd=0.0, cost_source="local")
NUMBERS = itertools.count(1)
AXES: tuple[Axis, ...] = get_args(Axis)


def ran(**given: Any) -> Ran:
    number = next(NUMBERS)
    known: dict[str, Any] = {
        "run_id": f"{number:04}",
        "state": "ended",
        "work": (f"job-{number}", "fix"),
        "agent": "desk",
        "tier": "local",
        "status": "succeeded" if given.get("ok") else "failed",
        "usage": MILLION,
    }
    return Ran(**{**known, **given})


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_without_a_trial_nothing_is_known():
    assert wilson(0, 0) is None
    sums = total([])
    assert (sums.rate, sums.low, sums.high, sums.bill.cost_usd) == (None, None, None, None)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_is_one(case):
    successes, trials = case
    low, high = wilson(successes, trials) or (1, 0)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


def test_a_run_that_somebody_stopped_says_nothing_about_its_agent():
    runs = [ran(ok=True), ran(), ran(status="interrupted"), ran(status="cancelled")]
    sums = total(runs)
    assert (sums.runs, sums.stopped, sums.counted, sums.ok, sums.rate) == (4, 2, 2, 1, 0.5)
    assert sums.statuses == {"cancelled": 1, "failed": 1, "interrupted": 1, "succeeded": 1}


def test_what_did_not_end_is_counted_and_rates_nobody():
    runs = [
        ran(ok=True),
        ran(state="running", status=None, usage=None),
        ran(state="cut off", status=None, usage=None),
        ran(state="unreadable", status=None, usage=None),
    ]
    sums = total(runs)
    assert (sums.runs, sums.running, sums.cut_off, sums.unreadable) == (4, 1, 1, 1)
    assert (sums.counted, sums.ok) == (1, 1)
    assert (sums.bill.runs, sums.bill.unknown, sums.bill.cost_usd) == (3, 2, None)


def test_verified_is_of_those_that_were_checked():
    runs = [ran(ok=True, verified=True), ran(verified=False), ran(ok=True)]
    sums = total(runs)
    assert (sums.verified, sums.checked) == (1, 2)


# --- groups ---------------------------------------------------------------------------------------

RUNS = st.lists(
    st.builds(
        Ran,
        run_id=st.uuids().map(str),
        state=st.sampled_from(["ended", "running", "cut off", "unreadable"]),
        work=st.none() | st.tuples(st.sampled_from("ab"), st.sampled_from("xy")),
        agent=st.none() | st.sampled_from(["one", "two"]),
        kind=st.none() | st.sampled_from(["fix", "search"]),
        tier=st.sampled_from([None, "local", "cloud"]),
        status=st.sampled_from([None, "succeeded", "failed", "interrupted"]),
        ok=st.booleans(),
        usage=st.none() | st.just(MILLION),
    ),
    max_size=12,
    unique_by=lambda run: run.run_id,
)


@given(RUNS, st.lists(st.sampled_from(AXES), min_size=1, max_size=3))
def test_every_run_is_in_exactly_one_group(runs, by):
    groups, whole = grouped(runs, by, PRICE), total(runs, PRICE)
    assert len({group.key for group in groups}) == len(groups)
    for name in ("runs", "running", "cut_off", "unreadable", "counted", "ok", "left", "again"):
        assert sum(getattr(group, name) for group in groups) == getattr(whole, name)
    known = [group.saved_usd for group in groups if group.saved_usd is not None]
    assert whole.saved_usd is None or sum(known) == pytest.approx(whole.saved_usd)


def test_the_group_with_the_most_runs_stands_first():
    runs = [ran(kind="fix"), ran(kind="search"), ran(kind="search"), ran()]
    assert [group.key for group in grouped(runs, ["kind"])] == [("search",), ("-",), ("fix",)]


def test_a_run_says_a_word_on_every_axis():
    run = Ran(
        run_id="1",
        state="ended",
        agent="codex",
        model="m",
        server="http://127.0.0.1:1",
        kind="fix",
        day="2026-01-02",
        repository="/r",
        tier="local",
    )
    words = ["codex", "m", "http://127.0.0.1:1", "fix", "2026-01-02", "/r", "local"]
    assert [said(run, axis) for axis in AXES] == words
    assert {said(Ran(run_id="1", state="ended"), axis) for axis in AXES} == {"-"}


def test_a_filter_keeps_broken_records_that_do_not_say():
    broken = Ran(run_id="1", state="unreadable", problem="not JSON")
    named = replace(broken, agent="other")
    runs = [ran(), ran(agent="other"), broken, named]
    assert matching(runs, {"agent": "desk"}) == [runs[0], broken]
    assert matching(runs, {}) == runs


# --- attempts -------------------------------------------------------------------------------------


def attempts(*agents: str, ok: bool = True) -> list[Ran]:
    work = (f"job-{next(NUMBERS)}", "fix")
    last = len(agents) - 1
    tiers = ["cloud" if agent == "cloud" else "local" for agent in agents]
    return [
        ran(work=work, agent=agent, tier=tier, ok=ok and number == last)
        for number, (agent, tier) in enumerate(zip(agents, tiers, strict=True))
    ]


def test_a_task_that_goes_on_with_another_agent_was_escalated_by_the_first():
    runs = [*attempts("desk", "desk", "cloud"), *attempts("desk")]
    by_agent = {sums.key[0]: (sums.left, sums.again) for sums in grouped(runs, ["agent"])}
    assert by_agent == {"desk": (1, 1), "cloud": (0, 0)}


def test_a_local_success_saved_what_the_same_tokens_cost_in_the_cloud():
    runs = attempts("desk")
    assert saved(runs, PRICE) == {runs[0].run_id: pytest.approx(1 * 1 + 0.1 * 10)}
    assert total(runs, PRICE).saved_usd == pytest.approx(2)


@pytest.mark.parametrize(
    "runs",
    [attempts("desk", "cloud"), attempts("cloud"), attempts("desk", ok=False), []],
    ids=["escalated", "in the cloud", "failed", "nothing"],
)
def test_what_the_cloud_did_in_the_end_or_nobody_was_not_saved(runs):
    assert saved(runs, PRICE) == {}
    assert total(runs, PRICE).saved_usd == 0


def test_attempts_that_failed_before_a_local_success_saved_nothing_more():
    assert total(attempts("desk", "desk"), PRICE).saved_usd == pytest.approx(2)


def test_what_was_saved_is_unknown_without_a_price_or_without_tokens():
    assert total(attempts("desk"), None).saved_usd is None
    silent = [replace(run, usage=None) for run in attempts("desk")]
    assert total(silent, PRICE).saved_usd is None
    uncounted = [replace(run, usage=Usage(cost_usd=0.0)) for run in attempts("desk")]
    assert total([*uncounted, *attempts("desk")], PRICE).saved_usd is None


def test_the_usual_model_of_the_cloud_is_the_one_with_the_most_runs():
    runs = [ran(tier="cloud", model=model) for model in ("b", "a", "b", "c", None, None, None)]
    local = [ran(model="l") for _ in range(5)]
    assert usual_cloud_model([*runs, *local]) == "b"
    assert usual_cloud_model(local) is None


# --- times ----------------------------------------------------------------------------------------


def test_times_are_medians_and_speed_is_of_all_tokens_by_all_seconds():
    usage = Usage(output_tokens=100)
    runs = [
        ran(duration_s=1.0, first_token_s=0.5, model_s=1.0, usage=usage),
        ran(
            duration_s=3.0, first_token_s=1.5, model_s=3.0, usage=replace(usage, output_tokens=500)
        ),
        ran(duration_s=50.0, usage=usage),
        ran(usage=None, model_s=9.0),
        ran(usage=Usage(), model_s=9.0),
    ]
    sums = total(runs)
    assert (sums.duration_s, sums.first_token_s, sums.tokens_per_s) == (3.0, 1.0, 150.0)
    assert total([ran()]).tokens_per_s is None
